"""Network: preprocessing and a user's network in, one model from raw inputs to logits out, and what it computes."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

_OWN = "network."
_LANES = 16
_ROWS = 2  # dimensions of a batch of vectors


def with_preprocess(preprocess: nn.Module, network: nn.Module) -> nn.Sequential:
    """Return the model that takes inputs as the user has them and yields the network's logits."""
    return nn.Sequential(OrderedDict(preprocess=preprocess, network=network))


def own_name(name: str) -> str:
    """Return a layer's name as the author of the network knows it."""
    return name.removeprefix(_OWN)


def macs(model: nn.Module, example: Tensor) -> int:
    """Count the multiply-accumulates of convolutions and matrix products for one input, as they are called.

    `example` is a batch of inputs; the model's mode and gradients are not touched.
    """
    with FlopCounterMode(display=False) as counter:
        call_once(model, example)
    return int(counter.get_total_flops()) // (2 * len(example))


def traffic(model: nn.Module, example: Tensor) -> tuple[int, int]:
    """Return how many values the layers of a model put out for one input, and how many layers it calls.

    Channels of maps count in groups of 16, as kernels compute them, unless there is only one.
    """
    sizes: list[int] = []

    def note(_: nn.Module, __: object, output: object) -> None:
        if isinstance(output, Tensor):
            channels = output.shape[1] if output.dim() > _ROWS else 1
            padded = -(-channels // _LANES) * _LANES if channels > 1 else 1
            sizes.append(output.numel() // max(1, channels) * padded)

    hooks = [part.register_forward_hook(note) for part in model.modules() if not any(part.children())]
    try:
        call_once(model, example)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(sizes) // len(example), len(sizes)


def call_once(model: nn.Module, example: Tensor) -> None:
    """Call a model on a batch of inputs in eval mode, to watch what it does; its mode and gradients are not touched."""
    training = {module: module.training for module in model.modules()}
    weights = {name: weight.detach() for name, weight in model.named_parameters()}  # a flop counter follows gradients
    with torch.inference_mode():
        functional_call(model.eval(), weights, (example,))
    for module, mode in training.items():
        module.training = mode
