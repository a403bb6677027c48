"""Toys: data sets and networks as a user would write them, good ones and bad ones."""

import sys
from dataclasses import replace

import torch
from torch import Tensor, nn

from beats_search import DataBundle, Split
from beats_search.tensors.beats_layers import BeatsConv2d


def stripes(count: int = 240, classes: int = 10) -> DataBundle:
    """Return noisy 8×8 images of which one column or row is bright."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    images = 0.4 * torch.rand(count, 1, 8, 8, generator=random)
    for image, label in zip(images, labels.tolist(), strict=True):
        line = image[0, label] if label < 8 else image[0, :, label - 8]
        line += 0.6
    third = count // 3
    return DataBundle(
        train=Split(inputs=images[:third], labels=labels[:third]),
        validation=Split(inputs=images[third : 2 * third], labels=labels[third : 2 * third]),
        test=Split(inputs=images[2 * third :], labels=labels[2 * third :]),
        classes=tuple(f"line {number}" for number in range(classes)),
    )


def in_order(each: int = 300) -> DataBundle:
    """Return stripes whose validation split is one image of each class in turn, so many times."""
    data = stripes()
    first = [int((data.validation.labels == label).nonzero()[0]) for label in range(len(data.classes))]
    places = torch.tensor(first).repeat_interleave(each)
    validation = Split(inputs=data.validation.inputs[places], labels=data.validation.labels[places])
    return DataBundle(train=data.train, validation=validation, test=data.test, classes=data.classes)


def lacking() -> DataBundle:
    """Return stripes whose validation split has no example of the classes 7 to 9."""
    data = stripes()
    kept = data.validation.labels < 7
    few = Split(inputs=data.validation.inputs[kept], labels=data.validation.labels[kept])
    return replace(data, validation=few)


def one_class() -> DataBundle:
    """Return data in which there is nothing to tell apart."""
    data = stripes()
    same = Split(inputs=data.train.inputs, labels=torch.zeros_like(data.train.labels))
    return DataBundle(train=same, validation=data.validation, test=data.test, classes=data.classes)


def no_bundle() -> int:
    """Return something that is no data set."""
    return 3


def net(input_shape: tuple[int, ...], classes: int, width: int = 8) -> nn.Module:
    """Return a small network."""
    channels, height, wide = input_shape
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(width * height * wide, classes),
    )


def lazy(input_shape: tuple[int, ...], classes: int) -> nn.Module:  # noqa: ARG001 - a model's signature
    """Return a network that finds the sizes of its inputs at its first call."""
    return nn.Sequential(
        BeatsConv2d(8, (3, 3), activation="relu"),
        nn.LazyConv2d(8, 3, bias=False),
        nn.LazyBatchNorm2d(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.LazyLinear(16),
        nn.ReLU(),
        nn.Linear(16, classes),
    )


class _Tokens(nn.Module):
    """Turns images into rows of pixels, the mean of which is classified."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.rows = nn.Sequential(nn.Linear(width, 5), nn.ReLU())
        self.head = nn.Linear(5, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.rows(images.flatten(1, 2)).mean(dim=1))
        return logits


def tokens(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return a network whose layers stand in a Sequential and see more than one row per input."""
    return _Tokens(input_shape[2], classes)


def raises(input_shape: tuple[int, ...], classes: int) -> nn.Module:  # noqa: ARG001 - a model's signature
    """Fail as a user's code does."""
    raise RuntimeError("my own\ntrouble")


def exits(input_shape: tuple[int, ...], classes: int) -> nn.Module:  # noqa: ARG001 - a model's signature
    """Leave as a careless user's code does."""
    sys.exit("bye")


def wrong_shape(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return a network with one class too many."""
    return net(input_shape, classes + 1)


class _Explosive(nn.Module):
    """Works when it is built and breaks when it is trained."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            raise RuntimeError("cannot be trained")
        logits: Tensor = self.inner(images)
        return logits


def breaks_in_training(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return a network that raises in training mode."""
    return _Explosive(net(input_shape, classes))


class _Forked(nn.Module):
    """Takes a way that depends on its data."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images if float(images.sum()) > 0 else -images)
        return logits


def cannot_be_exported(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return a network without a static graph."""
    return _Forked(net(input_shape, classes))
