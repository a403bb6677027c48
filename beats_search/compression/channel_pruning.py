"""Channel pruning: a trained model in, a physically smaller one out, trained again for some epochs.

The least important channels are removed with everything that depends on them (Fang et al. 2023,
"DepGraph", by torch-pruning); what remains is an ordinary, narrower network.
"""

import copy
import fnmatch
import math
import warnings
from dataclasses import dataclass
from typing import Literal, final

import torch
import torch_pruning
from torch import Tensor, nn

from beats_search.records.errors import TrialError
from beats_search.tensors.network import own_name
from beats_search.tensors.seams import Bench

__all__ = ["ChannelPruning"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelPruning:
    """Remove a `ratio` of the channels of every layer but the last; `layers` limits it by name.

    Widths are rounded up to a multiple of `round_to`, so a narrow layer may keep all its channels.
    """

    ratio: float
    layers: tuple[str, ...] = ("*",)
    round_to: int = 16
    criterion: Literal["magnitude", "random"] = "magnitude"
    recovery_epochs: int = 0

    def __post_init__(self) -> None:
        """Refuse to remove everything, and other nonsense."""
        if not 0 <= self.ratio < 1:
            raise ValueError(f"ratio needs to be at least 0 and below 1, got {self.ratio}")
        if self.round_to < 1:
            raise ValueError(f"round_to needs to be at least 1 channel, got {self.round_to}")
        if self.recovery_epochs < 0:
            raise ValueError(f"recovery_epochs needs to be at least 0, got {self.recovery_epochs}")
        if not self.layers:
            raise ValueError("layers needs at least one name or pattern, got none")

    def apply(self, model: nn.Module, bench: Bench) -> nn.Module:
        """Return the narrower model, recovered; the model itself where no channel is removed.

        Raises ValueError when no layer has a name that `layers` matches.
        """
        if not self.ratio:
            return model
        example = torch.zeros(1, *bench.data.input_shape)
        keep = self._channels_to_keep(model, example)
        if not keep:
            return model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(bench.seed)
            pruned = self._pruned(model, example, keep)
        return bench.fine_tune(pruned, self.recovery_epochs) if self.recovery_epochs else pruned

    def _channels_to_keep(self, model: nn.Module, example: Tensor) -> dict[str, int]:
        """Return the new width of every layer that gets narrower, by the layer's name."""
        layers = _prunable(model, example)
        chosen = {
            name: width
            for name, width in layers.items()
            if any(fnmatch.fnmatchcase(own_name(name), pattern) for pattern in self.layers)
        }
        if not chosen and self.layers != ("*",):
            rule = f"layers={list(self.layers)} matches no layer that can be pruned"
            raise ValueError(f"{rule}; there are: {', '.join(own_name(name) for name in layers) or 'none'}")
        narrowed = {name: self._rounded(width) for name, width in chosen.items()}
        return {name: width for name, width in narrowed.items() if width < chosen[name]}

    def _rounded(self, width: int) -> int:
        kept = math.ceil(width * (1 - self.ratio) / self.round_to - 1e-9) * self.round_to
        return min(width, max(kept, self.round_to))

    def _pruned(self, model: nn.Module, example: Tensor, keep: dict[str, int]) -> nn.Module:
        narrower = copy.deepcopy(model).eval().requires_grad_(requires_grad=True)
        layers = {narrower.get_submodule(name): width for name, width in keep.items()}
        others = [layer for layer in narrower.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        importance = {
            "magnitude": torch_pruning.importance.GroupMagnitudeImportance(p=2),
            "random": torch_pruning.importance.RandomImportance(),
        }[self.criterion]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library warns of parameters outside of layers, which stay
            torch_pruning.pruner.BasePruner(
                narrower,
                example,
                importance=importance,
                pruning_ratio=0.0,
                pruning_ratio_dict={layer: _share(_width(layer), width) for layer, width in layers.items()},
                ignored_layers=[layer for layer in others if layer not in layers],
            ).step()
        if all(_width(layer) != width for layer, width in layers.items()):
            names = ", ".join(own_name(name) for name in keep)
            raise TrialError(
                f"layers: {names} cannot get narrower alone: layers outside of the pattern share their width"
            )
        return narrower


def _share(width: int, kept: int) -> float:
    """Return the ratio for which the library, rounding down, keeps exactly `kept` of `width`."""
    return (width - kept - 0.5) / width


def _prunable(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Return the width of every convolution and linear layer but the last one that is run."""
    ran: list[str] = []
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    hooks = [layer.register_forward_hook(lambda *_, name=name: ran.append(name)) for name, layer in layers.items()]
    with torch.inference_mode():
        model.eval()(example)
    for hook in hooks:
        hook.remove()
    return {name: _width(layers[name]) for name in dict.fromkeys(ran) if name != ran[-1]}


def _width(layer: nn.Module) -> int:
    match layer:
        case nn.Conv2d(out_channels=width) | nn.Linear(out_features=width):
            return int(width)
    raise TypeError(f"a prunable layer is a Conv2d or a Linear, got {type(layer).__name__}")
