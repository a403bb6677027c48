"""Beats layers: a width and an activation in, a layer that marks one region of the Beats method out.

They are plain layers to everything else: what the method needs beside them, such as the head for
local errors, belongs to the trainer. So a network exports, prunes and quantizes with them as it
does with the Conv2d, Linear and activation that they hold.
"""

from collections import OrderedDict
from typing import Literal, final

from torch import nn

from beats_search.plugins import did_you_mean
from beats_search.tensors.activations import ACTIVATIONS, ActivationName

Activation = ActivationName | Literal["linear"] | None


@final
class BeatsConv2d(nn.Sequential):
    """A convolution that keeps height and width, with its activation; it marks a region.

    Its children are `layer`, a Conv2d, and `activation`.
    """

    def __init__(
        self,
        out_channels: int,
        kernel_size: int | tuple[int, int] = (3, 3),
        activation: Activation = "relu",
        in_channels: int | None = None,
    ) -> None:
        """Make (n, in, height, width) into (n, out, height, width).

        Without `in_channels` they are found at the first call. Raises ValueError for a kernel of
        even size, which no padding centres, and for an unknown activation.
        """
        height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        if not height % 2 or not width % 2:
            rule = "BeatsConv2d needs a kernel of odd height and width, so that padding keeps the size"
            raise ValueError(f"{rule}, got kernel_size={kernel_size}")
        if in_channels is None:
            layer: nn.Conv2d = nn.LazyConv2d(
                out_channels,
                (height, width),
                padding="same",  # type: ignore[arg-type]  # handed on to Conv2d, which takes it
            )
        else:
            layer = nn.Conv2d(in_channels, out_channels, (height, width), padding="same")
        super().__init__(_children(layer, activation))


@final
class BeatsLinear(nn.Sequential):
    """A fully connected layer with its activation; it marks a region.

    Its children are `layer`, a Linear, and `activation`.
    """

    def __init__(self, out_features: int, activation: Activation = "relu", in_features: int | None = None) -> None:
        """Make (n, in) into (n, out); without `in_features` they are found at the first call.

        Raises ValueError for an unknown activation.
        """
        layer = nn.LazyLinear(out_features) if in_features is None else nn.Linear(in_features, out_features)
        super().__init__(_children(layer, activation))


def _children(layer: nn.Module, activation: Activation) -> OrderedDict[str, nn.Module]:
    if activation is None or activation == "linear":
        return OrderedDict(layer=layer)
    if activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}{did_you_mean(activation, (*ACTIVATIONS, 'linear'))}")
    return OrderedDict(layer=layer, activation=ACTIVATIONS[activation]())
