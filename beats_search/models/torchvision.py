"""Torchvision: any classification network of torchvision by its name, untrained and fitted to the data."""

import difflib
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import nn
from torch.func import functional_call
from torchvision import models

from beats_search.plugins import did_you_mean

__all__ = ["Torchvision"]

_NETWORKS: Final[tuple[str, ...]] = tuple(models.list_models(module=models))
_WITHOUT_AUXILIARY_HEADS: Final = {"aux_logits": False, "init_weights": True}
"""Auxiliary heads would return more than logits while training."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Torchvision:
    """Any torchvision classification network by name, such as `resnet18`, with random weights."""

    network: str

    def __post_init__(self) -> None:
        """Refuse a name that torchvision does not know."""
        if self.network not in _NETWORKS:
            raise ValueError(f"unknown torchvision network {self.network!r}{_near(self.network)}")

    def build(self, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        """Return an untrained network from images (n, channels, height, width) to logits (n, classes).

        The first convolution takes as many channels as the images have. Raises ValueError for
        inputs that are no images or that the network cannot take, most often because they are too
        small for its poolings.
        """
        if len(input_shape) != 3:  # noqa: PLR2004 - channels, height, width
            raise ValueError(f"{self.network} needs images (channels, height, width), got {input_shape}")
        extra = _extra_settings(self.network, input_shape)
        try:
            network: nn.Module = models.get_model(self.network, weights=None, num_classes=classes, **extra)
            _take_channels(network, input_shape[0])
            _pass_weightless(network, input_shape)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ValueError(f"{self.network} cannot take inputs of shape {input_shape}: {error}") from error
        return network


def _near(name: str) -> str:
    near = tuple(difflib.get_close_matches(name, _NETWORKS, n=5, cutoff=0.5))
    if near:
        return did_you_mean(name, near)
    return "; torchvision.models.list_models(module=torchvision.models) lists them"


def _extra_settings(name: str, input_shape: tuple[int, ...]) -> dict[str, int | bool]:
    if name in {"googlenet", "inception_v3"}:
        return dict(_WITHOUT_AUXILIARY_HEADS)
    return {"image_size": input_shape[1]} if name.startswith("vit_") else {}


def _take_channels(network: nn.Module, channels: int) -> None:
    """Replace the first convolution by one that takes `channels` channels, where it does not yet."""
    name, first = next((name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
    if first.in_channels == channels:
        return
    stem = nn.Conv2d(
        channels,
        first.out_channels,
        kernel_size=first.kernel_size,  # type: ignore[arg-type]  # a tuple of two, typed as of any length
        stride=first.stride,  # type: ignore[arg-type]  # the same
        padding=first.padding,  # type: ignore[arg-type]  # the same
        bias=first.bias is not None,
    )
    network.set_submodule(name, stem)


def _pass_weightless(network: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Pass one input through; on the meta device, so that only shapes are computed."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    weightless = {key: tensor.to("meta") for key, tensor in tensors.items()}
    functional_call(network.eval(), weightless, torch.empty(1, *input_shape, device="meta"))
    network.train()
