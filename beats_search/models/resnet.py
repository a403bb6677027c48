"""ResNet: small images to logits through three stages of residual blocks (He et al. 2016, section 4.2)."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

__all__ = ["Resnet"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Resnet:
    """Residual network for small images: three stages of `blocks` blocks, `width`, 2x and 4x wide."""

    width: int = 32
    blocks: int = 1

    def __post_init__(self) -> None:
        """Refuse a network without channels or blocks."""
        if self.width < 1 or self.blocks < 1:
            raise ValueError(f"resnet needs width >= 1 and blocks >= 1, got width={self.width}, blocks={self.blocks}")

    def build(self, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        """Return an untrained network from images (n, channels, height, width) to logits (n, classes).

        Raises ValueError for inputs that are no images.
        """
        if len(input_shape) != 3:  # noqa: PLR2004 - channels, height, width
            raise ValueError(f"resnet needs images (channels, height, width), got {input_shape}")
        narrow, middle, wide = self.width, 2 * self.width, 4 * self.width
        return nn.Sequential(
            OrderedDict(
                stem=nn.Sequential(*_convolution(input_shape[0], narrow, stride=1), nn.ReLU()),
                layer1=_stage(narrow, narrow, self.blocks, stride=1),
                layer2=_stage(narrow, middle, self.blocks, stride=2),
                layer3=_stage(middle, wide, self.blocks, stride=2),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                fc=nn.Linear(wide, classes),
            )
        )


@final
class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: (n, inputs, h, w) to (n, outputs, h/stride, w/stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Project the shortcut only where the shape changes."""
        super().__init__()
        changes = stride != 1 or inputs != outputs
        self.body = nn.Sequential(
            *_convolution(inputs, outputs, stride=stride), nn.ReLU(), *_convolution(outputs, outputs, stride=1)
        )
        self.shortcut = (
            nn.Sequential(*_convolution(inputs, outputs, stride=stride, size=1)) if changes else nn.Identity()
        )
        self.relu = nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the sum of both paths, rectified."""
        rectified: Tensor = self.relu(self.body(inputs) + self.shortcut(inputs))
        return rectified


def _stage(inputs: int, outputs: int, blocks: int, *, stride: int) -> nn.Sequential:
    rest = (ResidualBlock(outputs, outputs, stride=1) for _ in range(blocks - 1))
    return nn.Sequential(ResidualBlock(inputs, outputs, stride=stride), *rest)


def _convolution(inputs: int, outputs: int, *, stride: int, size: int = 3) -> tuple[nn.Module, nn.Module]:
    padding = size // 2
    return (
        nn.Conv2d(inputs, outputs, kernel_size=size, stride=stride, padding=padding, bias=False),
        nn.BatchNorm2d(outputs),
    )
