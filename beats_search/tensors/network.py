"""Network: preprocessing and a user's network in, one model from raw inputs to logits out, and what it computes."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

_OWN = "network."


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


def call_once(model: nn.Module, example: Tensor) -> None:
    """Call a model on a batch of inputs in eval mode, to watch what it does; its mode and gradients are not touched."""
    training = {module: module.training for module in model.modules()}
    weights = {name: weight.detach() for name, weight in model.named_parameters()}  # a flop counter follows gradients
    with torch.inference_mode():
        functional_call(model.eval(), weights, (example,))
    for module, mode in training.items():
        module.training = mode
