"""Data: a data set that nothing could be learned from is refused with the rule and the split."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from beats_search.tensors.data import DataBundle, Split, standardize_by, to_float

IMAGES, LABELS = torch.rand(6, 1, 4, 4), torch.arange(6) % 3
GOOD = Split(inputs=IMAGES, labels=LABELS)


@pytest.mark.parametrize(
    ("inputs", "labels", "rule"),
    [
        (IMAGES.numpy(), LABELS, "inputs need to be a torch tensor, got ndarray"),
        (IMAGES, LABELS.numpy(), "labels need to be a torch tensor"),
        (IMAGES.long(), LABELS, "float or uint8, got torch.int64"),
        (IMAGES, LABELS.int(), "int64 class numbers"),
        (IMAGES, LABELS[:, None], r"shape \(n,\), got \(6, 1\)"),
        (IMAGES, LABELS[:5], "a label per input, got 6 and 5"),
    ],
)
def test_a_wrong_split_is_refused(inputs: Tensor, labels: Tensor, rule: str) -> None:
    """A split holds tensors that belong together."""
    with pytest.raises((TypeError, ValueError), match=rule):
        Split(inputs=inputs, labels=labels)


@pytest.mark.parametrize(
    ("split", "rule"),
    [
        (Split(inputs=IMAGES[:0], labels=LABELS[:0]), "at least one input"),
        (Split(inputs=IMAGES[:, :, :3], labels=LABELS), "one shape"),
        (Split(inputs=IMAGES, labels=LABELS + 1), r"0…2 \(3 classes\), got 1…3"),
        (Split(inputs=IMAGES * np.nan, labels=LABELS), "finite numbers"),
        (Split(inputs=IMAGES * 255, labels=LABELS), "within 0…1"),
    ],
)
def test_a_wrong_data_set_is_refused(split: Split, rule: str) -> None:
    """All splits fit together, with labels of the classes and images in the range that models take."""
    with pytest.raises(ValueError, match=rule):
        DataBundle(train=GOOD, validation=split, test=GOOD, classes=("a", "b", "c"))


@given(size=st.integers(1, 400), count=st.integers(1, 400), seed=st.integers(0, 2**32 - 1))
def test_inputs_are_drawn_once_each_with_their_labels(size: int, count: int, seed: int) -> None:
    """As many as asked for are drawn, or all; each has its label, and a seed always draws the same."""
    numbers = torch.arange(size)
    split = Split(inputs=numbers.float().reshape(-1, 1), labels=numbers)
    drawn = split.drawn(count, seed)
    assert len(drawn) == len(set(drawn.labels.tolist())) == min(size, count)
    assert torch.equal(drawn.inputs[:, 0].long(), drawn.labels)
    assert torch.equal(split.drawn(count, seed).labels, drawn.labels)


def test_of_sorted_inputs_all_classes_are_drawn() -> None:
    """A few inputs of a split that is sorted by class have its classes in about its shares."""
    labels = torch.arange(10).repeat_interleave(1000)
    drawn = Split(inputs=torch.zeros(len(labels), 1), labels=labels).drawn(256, seed=0)
    assert drawn.labels.bincount().min() > 10


def test_bytes_are_images_too() -> None:
    """An image of bytes is the same image in 0…1."""
    assert torch.equal(to_float(torch.tensor([0, 255], dtype=torch.uint8)), torch.tensor([0.0, 1.0]))


def test_standardized_images_have_mean_0_and_deviation_1() -> None:
    """The statistics are those of the training images, per channel."""
    images = torch.rand(50, 3, 5, 5) * torch.tensor([1.0, 0.5, 0.1]).reshape(1, 3, 1, 1)
    split = Split(inputs=images, labels=torch.zeros(50, dtype=torch.int64))
    got = standardize_by(split)(images)
    assert torch.allclose(got.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(got.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-5)
