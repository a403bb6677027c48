"""Plain weights: a network that computes weights (parametrized, as by weight norm) in, one that holds them out."""

import copy
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


def with_plain_weights(model: nn.Module) -> nn.Module:
    """Return a copy that holds the weights as they are computed now; the model itself where none is computed."""
    if not any(parametrize.is_parametrized(module) for module in model.modules()):
        return model
    plain = copy.deepcopy(model)
    fix_weights(module for module in plain.modules() if parametrize.is_parametrized(module))
    return plain


def fix_weights(modules: Iterable[nn.Module]) -> None:
    """Let modules that compute weights hold them, in place.

    torch's own `remove_parametrizations` would also take them from all copies of a module.
    """
    with torch.no_grad():  # all are computed before any is held: two may be made of one parameter
        computed = [(module, _computed(module)) for module in modules]
    for module, weights in computed:
        module.__class__ = parametrize.type_before_parametrizations(module)
        del module.parametrizations
        for name, (value, sources) in weights.items():
            _hold(module, name, value, sources)


def _computed(module: nn.Module) -> dict[str, tuple[Tensor, list[nn.Parameter]]]:
    """Return each weight that a module computes, and the parameters that it is made of."""
    lists = cast("nn.ModuleDict", module.parametrizations)
    return {name: (getattr(module, name).clone(), [*made.parameters(recurse=False)]) for name, made in lists.items()}


def _hold(module: nn.Module, name: str, value: Tensor, sources: list[nn.Parameter]) -> None:
    match sources:
        case []:
            module.register_buffer(name, value)
        case [one] if one.shape == value.shape:  # the very parameter, for other modules may hold it too
            one.data = value
            module.register_parameter(name, one)
        case several:
            learns = any(source.requires_grad for source in several)
            module.register_parameter(name, nn.Parameter(value, requires_grad=learns))
