"""Data: a folder with MNIST in, 5,000 images to train on and 2,000 to validate on out."""

from dataclasses import replace
from pathlib import Path

from beats_search.datasets.mnist import Mnist
from beats_search.tensors.data import DataBundle


def few(root: Path) -> DataBundle:
    """Return the first images of MNIST's training and validation sets; test images are as many as published."""
    data = Mnist(root=str(root), limit=5000).load()
    return replace(data, validation=data.validation.first(2000))
