"""Fashion-MNIST: 70,000 pictures of clothes of 28x28 pixels, from the files as published."""

from dataclasses import dataclass, field
from typing import final

from torchvision import datasets

from beats_search.datasets._published import bundle, read_mnist_family, refuse_limit
from beats_search.records.plan import FIXED
from beats_search.tensors.data import DataBundle

__all__ = ["FashionMnist"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FashionMnist:
    """Pictures of clothes, 28x28 pixels; 50,000 for training, or the first `limit` of them."""

    root: str = field(default="data", metadata={**FIXED, "path": True})
    download: bool = field(default=False, metadata=FIXED)
    limit: int | None = field(default=None, metadata=FIXED)

    def __post_init__(self) -> None:
        """Refuse a limit that leaves nothing."""
        refuse_limit(self.limit)

    def load(self) -> DataBundle:
        """Return uint8 images (n, 1, 28, 28); validation are the last 10,000 training images.

        The files are read from `root/FashionMNIST/raw` or `root`; FileNotFoundError when one is missing.
        """
        train, test = read_mnist_family(datasets.FashionMNIST, self.root, download=self.download)
        return bundle(train, test, tuple(datasets.FashionMNIST.classes), self.limit)
