"""Regions: a network in, the parts of it that accumulate and update on their own out."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, final

from torch import nn
from torch.nn import Parameter
from torch.nn.parameter import is_lazy

from beats_search.tensors.beats_layers import BeatsConv2d, BeatsLinear

_WITHOUT_FORWARD: Final = (nn.ModuleList, nn.ModuleDict)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Region:
    """Some parameters, and the module whose input is all that the regions before have made of a batch."""

    name: str
    parameters: tuple[Parameter, ...]
    entry: nn.Module


def find_regions(model: nn.Module, trained: Iterable[Parameter]) -> tuple[Region, ...]:
    """Return the regions of a model in the order of its definition; they partition the `trained` parameters.

    A region is a Beats layer, or a child of the network that holds parameters. A child that holds
    vectors only, such as a norm, belongs to the child before it; parameters that the network holds
    itself belong to the first one. Raises ValueError for a parameter that is not the model's.
    """
    wanted = {id(parameter) for parameter in trained}
    own, parts = _parts(model, wanted)
    grouped: list[tuple[str, nn.Module, list[Parameter]]] = []
    for name, module in parts:
        fresh = _claimed(module.parameters(), wanted)
        if fresh and not (grouped and _holds_vectors_only(fresh)):
            grouped.append((name, module, fresh))
        elif fresh:
            grouped[-1][2].extend(fresh)
    _claim_own(own, model, wanted, grouped)
    if wanted:
        raise ValueError(f"the optimizer holds {len(wanted)} parameters that are not the model's")
    return tuple(Region(name=name, parameters=tuple(parameters), entry=module) for name, module, parameters in grouped)


def _parts(model: nn.Module, wanted: set[int]) -> tuple[list[nn.Module], list[tuple[str, nn.Module]]]:
    """Return the opened modules, whose own parameters are in no part, and the parts with their names."""
    network = model
    while (only := _only_child(network, wanted)) is not None:
        network = only
    opened = [model, network]
    parts = list(_opened(network, "", opened))
    return opened, parts or [(type(network).__name__.lower(), network)]


def _only_child(module: nn.Module, wanted: set[int]) -> nn.Module | None:
    """Return the child that holds all the trained parameters of a module, None where there is no one such."""
    if isinstance(module, (BeatsConv2d, BeatsLinear)) or _holds(module.parameters(recurse=False), wanted):
        return None
    holding = [child for child in module.children() if _holds(child.parameters(), wanted)]
    return holding[0] if len(holding) == 1 and any(True for _ in holding[0].children()) else None


def _opened(module: nn.Module, prefix: str, opened: list[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        if _is_open(child):
            opened.append(child)
            yield from _opened(child, f"{prefix}{name}.", opened)
        else:
            yield prefix + name, child


def _is_open(module: nn.Module) -> bool:
    """Tell whether regions are to be looked for inside a module: it is never called itself, or holds Beats layers."""
    if isinstance(module, (BeatsConv2d, BeatsLinear)):
        return False
    return isinstance(module, _WITHOUT_FORWARD) or any(
        isinstance(inner, (BeatsConv2d, BeatsLinear)) for inner in module.modules()
    )


def _claim_own(
    opened: list[nn.Module],
    model: nn.Module,
    wanted: set[int],
    grouped: list[tuple[str, nn.Module, list[Parameter]]],
) -> None:
    left = _claimed((each for module in opened for each in module.parameters(recurse=False)), wanted)
    left += _claimed(model.parameters(), wanted)
    if left and grouped:
        grouped[0][2].extend(left)
    elif left:
        grouped.append((type(model).__name__.lower(), model, left))


def _holds_vectors_only(parameters: list[Parameter]) -> bool:
    """Tell whether these are those of a norm or the like; a shape that is not known yet is a layer's."""
    return not any(is_lazy(parameter) for parameter in parameters) and max(each.ndim for each in parameters) <= 1


def _claimed(parameters: Iterable[Parameter], wanted: set[int]) -> list[Parameter]:
    """Return those parameters that no region has yet, and take them off the list of the wanted."""
    fresh = [parameter for parameter in parameters if id(parameter) in wanted]
    wanted.difference_update(id(parameter) for parameter in fresh)
    return list({id(parameter): parameter for parameter in fresh}.values())


def _holds(parameters: Iterable[Parameter], wanted: set[int]) -> bool:
    return any(id(parameter) in wanted for parameter in parameters)
