"""Models: one file is one family of networks, from the shape of an input and a number of classes to a module."""
