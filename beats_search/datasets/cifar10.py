"""CIFAR-10: 60,000 colour photographs of 32x32 pixels, from the files as published."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torchvision import datasets

from beats_search.datasets._published import bundle, refuse_limit
from beats_search.records.plan import FIXED
from beats_search.tensors.data import DataBundle, Split

__all__ = ["Cifar10"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Cifar10:
    """Colour photographs, 32x32 pixels; 40,000 for training, or the first `limit` of them."""

    root: str = field(default="data", metadata={**FIXED, "path": True})
    download: bool = field(default=False, metadata=FIXED)
    limit: int | None = field(default=None, metadata=FIXED)

    def __post_init__(self) -> None:
        """Refuse a limit that leaves nothing."""
        refuse_limit(self.limit)

    def load(self) -> DataBundle:
        """Return uint8 images (n, 3, 32, 32); validation are the last 10,000 training images.

        The files are read from `root/cifar-10-batches-py`; FileNotFoundError when they are not there
        or not the published ones.
        """
        home = Path(self.root).expanduser().absolute()
        if self.download:
            _open(home, train=True, download=True)
        train, test = (_open(home, train=part, download=False) for part in (True, False))
        return bundle(_split(train), _split(test), tuple(train.classes), self.limit)


def _open(home: Path, *, train: bool, download: bool) -> Any:  # noqa: ANN401 - an untyped library
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the published pickles are old: numpy warns of how they were written
        try:
            return datasets.CIFAR10(home, train=train, download=download)
        except RuntimeError as error:
            if download:
                raise
            folder = home / datasets.CIFAR10.base_folder
            remedy = "dataset: download: true fetches it"
            raise FileNotFoundError(f"no complete copy of CIFAR-10 in {folder}; {remedy}") from error


def _split(published: Any) -> Split:  # noqa: ANN401 - an untyped library
    images = torch.from_numpy(published.data).permute(0, 3, 1, 2).contiguous()
    return Split(inputs=images, labels=torch.tensor(published.targets))
