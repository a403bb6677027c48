"""CNN: images to logits through two convolutions with pooling, Beats layers and one dense layer."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, final

from torch import nn

from beats_search.tensors.beats_layers import BeatsConv2d

__all__ = ["Cnn"]

_SMALLEST: Final = 4
"""Two poolings by 2 leave at least one pixel of this side."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Cnn:
    """Two convolutions of `width` and 2·`width` channels, each with pooling, and a `dense` layer.

    `beats_layers` more convolutions of 2·`width` channels, each a region of the Beats method, stand
    between the second pooling and the dense layer.
    """

    width: int = 32
    dense: int = 128
    beats_layers: int = 0

    def __post_init__(self) -> None:
        """Refuse a network without channels or units, and fewer than no Beats layers."""
        if self.width < 1 or self.dense < 1:
            raise ValueError(f"cnn needs width >= 1 and dense >= 1, got width={self.width}, dense={self.dense}")
        if self.beats_layers < 0:
            raise ValueError(f"cnn.beats_layers needs to be at least 0, got {self.beats_layers}")

    def build(self, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        """Return an untrained network from images (n, channels, height, width) to logits (n, classes).

        Raises ValueError for inputs that are no images or smaller than 4 by 4 pixels.
        """
        if len(input_shape) != 3 or min(input_shape[1:]) < _SMALLEST:  # noqa: PLR2004 - channels, height, width
            raise ValueError(f"cnn needs images (channels, height, width) of at least 4x4 pixels, got {input_shape}")
        channels, height, width = input_shape
        middle = 2 * self.width
        beats = {f"beats{index}": _beats_layer(middle) for index in range(1, self.beats_layers + 1)}
        return nn.Sequential(
            OrderedDict(
                conv1=_convolution(channels, self.width),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=_convolution(self.width, middle),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
                **beats,
                flatten=nn.Flatten(),
                fc1=nn.Linear(middle * (height // 4) * (width // 4), self.dense),
                relu3=nn.ReLU(),
                fc2=nn.Linear(self.dense, classes),
            )
        )


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding="same")


def _beats_layer(channels: int) -> BeatsConv2d:
    return BeatsConv2d(channels, (3, 3), activation="relu", in_channels=channels)
