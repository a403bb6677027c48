"""Coupling: a network in, the sets of layers that can only get narrower together out (by torch-pruning).

Layers whose outputs are added up lose the same channels, with their norms and with what reads them
(Fang et al. 2023, "DepGraph").
"""

import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch_pruning
from torch import Tensor, nn

from beats_search.compression._fences import Fenced
from beats_search.compression._layers import weighted_layers, width_of
from beats_search.records.errors import TrialError


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CoupledLayers:
    """Layers of which each loses the channels that the first one loses.

    `name` and `width` are those of the first one. Its channels stand in `parts` blocks of one size,
    which lose the same places each, for grouped convolutions; one block for all others.
    """

    name: str
    width: int
    parts: int
    group: Any
    """The library's own list of what is to be done."""

    def remove(self, places: Sequence[int]) -> None:
        """Remove the channels at some places of every part, in place, from all layers that they pass."""
        size = self.width // self.parts
        self.group.prune([part * size + place for part in range(self.parts) for place in places])


@contextmanager
def following() -> Iterator[None]:
    """Turn whatever is raised within into a TrialError: the library fails in many ways on what it cannot follow."""
    try:
        yield
    except TrialError:
        raise
    except Exception as error:
        rule = "the channels of this network cannot be followed, so none can be removed"
        raise TrialError(f"{rule}: {type(error).__name__}: {error}") from error


def coupled_layers(model: nn.Module, example: Tensor, names: Collection[str]) -> tuple[CoupledLayers, ...]:
    """Return the sets of layers that can get narrower, in the order of the computation; all of them are of `names`.

    The model is in eval mode, `example` one input with its batch dimension. To be called, as all that
    is done to the sets, within `following`.
    """
    layers = weighted_layers(model)
    fenced = Fenced(model, example)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library warns of parameters outside of layers, which stay
        graph = torch_pruning.DependencyGraph().build_dependency(fenced, [example])
    others = [layer for name, layer in layers.items() if name not in names]
    groups = list(graph.get_all_groups([*others, *fenced.fences], (nn.Conv2d, nn.Linear)))
    fixed = {*fenced.fences, *(module for module in model.modules() if isinstance(module, nn.MultiheadAttention))}
    by_layer = {layer: name for name, layer in layers.items()}
    return tuple(_coupled(group, by_layer) for group in groups if fixed.isdisjoint(_modules(group)))


def _coupled(group: Any, names: dict[nn.Conv2d | nn.Linear, str]) -> CoupledLayers:  # noqa: ANN401 - the library's
    first = group[0].dep.target.module
    parts = max((_parts(module) for module in _modules(group)), default=1)
    return CoupledLayers(name=names[first], width=width_of(first), parts=parts, group=group)


def _modules(group: Any) -> Iterator[nn.Module]:  # noqa: ANN401 - the library's
    return (item.dep.target.module for item in group)


def _parts(module: nn.Module) -> int:
    match module:
        case nn.Conv2d(groups=groups, out_channels=width) if groups != width:
            return int(groups)  # of a depthwise convolution every channel is free to go
        case nn.GroupNorm(num_groups=groups):
            return int(groups)
    return 1
