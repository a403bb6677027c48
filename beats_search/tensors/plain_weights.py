"""Plain weights: a network that computes weights (parametrized, as by weight norm) in, one that holds them out."""

import copy
from typing import cast

import torch
from torch import nn
from torch.nn.utils import parametrize


def with_plain_weights(model: nn.Module) -> nn.Module:
    """Return a copy that holds the weights as they are computed now; the model itself where none is computed."""
    if not any(parametrize.is_parametrized(module) for module in model.modules()):
        return model
    plain = copy.deepcopy(model)
    for module in plain.modules():
        if parametrize.is_parametrized(module):
            fix_weights(module)
    return plain


def fix_weights(module: nn.Module) -> None:
    """Let one module hold the weights that it computes, in place.

    torch's own `remove_parametrizations` would also take them from all copies of the module.
    """
    lists = dict(cast("nn.ModuleDict", module.parametrizations))
    with torch.no_grad():
        computed = {name: getattr(module, name).clone() for name in lists}
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    for name, value in computed.items():
        match list(lists[name].parameters(recurse=False)):
            case []:
                module.register_buffer(name, value)
            case [one] if one.shape == value.shape:  # the very parameter, for other modules may hold it too
                one.data = value
                module.register_parameter(name, one)
            case several:
                learns = any(source.requires_grad for source in several)
                module.register_parameter(name, nn.Parameter(value, requires_grad=learns))
