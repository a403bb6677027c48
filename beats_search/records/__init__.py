"""The vocabulary: frozen data that travels between the layers. Standard library only."""
