"""Network: preprocessing and a user's network in, one model from raw inputs to logits out."""

from collections import OrderedDict

from torch import nn

_OWN = "network."


def with_preprocess(preprocess: nn.Module, network: nn.Module) -> nn.Sequential:
    """Return the model that takes inputs as the user has them and yields the network's logits."""
    return nn.Sequential(OrderedDict(preprocess=preprocess, network=network))


def own_name(name: str) -> str:
    """Return a layer's name as the author of the network knows it."""
    return name.removeprefix(_OWN)
