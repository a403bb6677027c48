"""Digits: the 1,797 handwritten digits of 8x8 pixels that come with scikit-learn."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final, final

import numpy as np
import torch

from beats_search.tensors.data import DataBundle, Split, standardize_by

__all__ = ["Digits"]

_FILE: Final = "datasets/data/digits.csv.gz"
_SIDE: Final = 8
_WHITE: Final = 16
_TEST: Final = 360
_VALIDATION: Final = 288


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """Handwritten digits, 8x8 pixels, 1,149 for training; ships with scikit-learn, no download."""

    def load(self) -> DataBundle:
        """Return float images (n, 1, 8, 8) in [0, 1], split in the published order.

        The last 360 are the test split (other writers), the 288 before them the validation split.
        """
        published = _published()
        images = torch.from_numpy(published[:, :-1]).reshape(-1, 1, _SIDE, _SIDE).float().div_(_WHITE)
        labels = torch.from_numpy(published[:, -1]).long()
        counts = [len(labels) - _VALIDATION - _TEST, _VALIDATION, _TEST]
        pairs = zip(torch.split(images, counts), torch.split(labels, counts), strict=True)
        train, validation, test = (Split(inputs=inputs, labels=targets) for inputs, targets in pairs)
        classes = tuple(str(name) for name in np.unique(published[:, -1]).astype(int))
        return DataBundle(
            train=train, validation=validation, test=test, classes=classes, preprocess=standardize_by(train)
        )


def _published() -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return the published rows (1797, 65): 64 pixels in [0, 16], and the digit.

    The file is read where scikit-learn has it, for importing scikit-learn takes two seconds; where it
    is not, scikit-learn is asked.
    """
    package = find_spec("sklearn")
    file = Path(package.origin).parent / _FILE if package and package.origin else None
    if file is not None and file.is_file():
        return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits  # noqa: PLC0415 - takes two seconds

    images, labels = load_digits(return_X_y=True)
    return np.column_stack([images, labels])
