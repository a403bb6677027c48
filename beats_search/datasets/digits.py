"""Digits: the 1,797 handwritten digits of 8x8 pixels that come with scikit-learn."""

from dataclasses import dataclass
from typing import Final, final

import torch
from sklearn.datasets import load_digits

from beats_search.tensors.data import DataBundle, Split, standardize_by

__all__ = ["Digits"]

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
        published = load_digits()
        images = torch.from_numpy(published.images).float().div_(_WHITE).unsqueeze(1)
        labels = torch.from_numpy(published.target).long()
        counts = [len(labels) - _VALIDATION - _TEST, _VALIDATION, _TEST]
        pairs = zip(torch.split(images, counts), torch.split(labels, counts), strict=True)
        train, validation, test = (Split(inputs=inputs, labels=targets) for inputs, targets in pairs)
        classes = tuple(str(name) for name in published.target_names)
        return DataBundle(
            train=train, validation=validation, test=test, classes=classes, preprocess=standardize_by(train)
        )
