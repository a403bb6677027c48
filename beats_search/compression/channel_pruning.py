"""Channel pruning: a trained model in, a physically smaller one out, trained again for some epochs.

The least important channels are removed with everything that depends on them; what remains is an
ordinary, narrower network.
"""

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn

from beats_search.compression._coupling import CoupledLayers, coupled_layers, following
from beats_search.compression._importance import Criterion, channel_scores
from beats_search.compression._layers import hidden_layers, matching, width_of
from beats_search.compression._widths import best_channels, cubic_ratios, dealt, kept_channels, rounded_up, weakest
from beats_search.records.errors import TrialError
from beats_search.tensors.network import own_name
from beats_search.tensors.seams import Bench, Distillation

__all__ = ["ChannelPruning"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelPruning:
    """Remove a `ratio` of the channels of every layer but the last; `layers` limits it by name.

    Widths are rounded up to a multiple of `round_to`, so a narrow layer may keep all its channels; those
    of grouped convolutions to a multiple of their groups that is no smaller.
    What goes first: channels of small weights (`magnitude`), those that change the loss least when
    they go (`taylor`, Molchanov et al. 2019), those with small scales in the batch norms behind them
    (`batch_norm_scale`, Liu et al. 2017; layers without one keep their width), those most like all
    others (`fpgm`, He et al. 2019), or any (`random`). With `ranking: global` all layers compete for
    their channels; widths then depend on the weights, and latency is known only after training.

    In several `steps` the ratio grows to its final value, most of it early (Zhu & Gupta 2017), each
    step followed by its part of the recovery epochs. During recovery a share `distillation` of the
    loss is the distance to the softened logits of the dense model (Hinton et al. 2015).
    """

    ratio: float
    layers: tuple[str, ...] = ("*",)
    round_to: int = 16
    criterion: Criterion = "magnitude"
    ranking: Literal["per_layer", "global"] = "per_layer"
    recovery_epochs: int = 0
    steps: int = 1
    distillation: float = 0.0
    temperature: float = 4.0

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
        if self.steps < 1:
            raise ValueError(f"steps needs to be at least 1, got {self.steps}")
        if 1 < self.steps > self.recovery_epochs:
            rule = "steps needs a recovery epoch for each step"
            raise ValueError(f"{rule}, got steps={self.steps}, recovery_epochs={self.recovery_epochs}")
        if not 0 <= self.distillation <= 1:
            raise ValueError(f"distillation needs to be between 0 and 1, got {self.distillation}")
        if self.distillation and not self.recovery_epochs:
            rule = "distillation needs at least 1 recovery epoch to take part in"
            raise ValueError(f"{rule}, got distillation={self.distillation}, recovery_epochs=0")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature needs to be a number above 0, got {self.temperature}")

    @property
    def unforeseen(self) -> frozenset[str]:
        """What depends on trained weights: all that widths decide, where layers compete."""
        competing = self.ratio and self.ranking == "global"
        return frozenset({"latency_ms", "size_kb", "macs"}) if competing else frozenset()

    def apply(self, model: nn.Module, bench: Bench) -> nn.Module:
        """Return the narrower model, recovered; the model itself where no channel is removed.

        Raises ValueError when no layer has a name that `layers` matches, TrialError when the network
        cannot be narrowed there, or not by this criterion.
        """
        if not self.ratio:
            return model
        widths = self._widths(model, _example(bench))
        pruned, owed = model, 0
        steps = zip(cubic_ratios(self.ratio, self.steps), dealt(self.recovery_epochs, self.steps), strict=True)
        for number, (ratio, epochs) in enumerate(steps if widths else ()):
            with _seeded(bench.seed + number), following():
                narrower = self._narrowed(pruned, widths, ratio, bench)
            owed += epochs
            if narrower is not model:  # a first step that rounding undoes leaves its epochs to the next
                pruned, owed = self._recovered(narrower, model, owed, bench), 0
        return pruned

    def _widths(self, model: nn.Module, example: Tensor) -> dict[str, int]:
        """Return the width of every layer that may get narrower, by the layer's name."""
        layers = hidden_layers(model, example)
        return {name: width_of(layers[name]) for name in matching(layers, self.layers)}

    def _narrowed(self, model: nn.Module, widths: Mapping[str, int], ratio: float, bench: Bench) -> nn.Module:
        """Return a copy without a `ratio` of the channels of the dense `widths`; the model where all of them stay."""
        narrower = copy.deepcopy(model).eval().requires_grad_(requires_grad=True)
        coupled = coupled_layers(narrower, _example(bench), widths)
        if not coupled:
            names = ", ".join(own_name(name) for name in widths)
            reason = "layers outside of the pattern share their width, or their channels change places on the way"
            raise TrialError(f"layers: {names} cannot get narrower: {reason}")
        scores = channel_scores(self.criterion, narrower, coupled, bench.data.train, bench.seed)
        if not scores:
            raise TrialError(
                f"criterion: {self.criterion} needs batch norms with scales behind the layers to be pruned, there are "
                "none in this network; magnitude, taylor and fpgm do without"
            )
        scored = [each for each in coupled if each.name in scores]
        kept = self._kept(scored, scores, widths, ratio)
        if all(kept[each.name] == each.width for each in scored):
            return model
        wanted = _logits_shape(narrower, _example(bench))
        for each in scored:
            if kept[each.name] < each.width:
                each.remove(weakest(scores[each.name], (each.width - kept[each.name]) // each.parts))
        if (got := _logits_shape(narrower, _example(bench))) != wanted:
            raise TrialError(f"without the channels that were removed, logits are {got} instead of {wanted}")
        narrower.zero_grad()
        return narrower

    def _kept(
        self, coupled: list[CoupledLayers], scores: Mapping[str, Tensor], widths: Mapping[str, int], ratio: float
    ) -> dict[str, int]:
        """Return how many channels each set of layers keeps."""
        multiples = {each.name: math.ceil(self.round_to / each.parts) * each.parts for each in coupled}
        if self.ranking == "per_layer":
            wanted = {each.name: kept_channels(widths[each.name], ratio, multiples[each.name]) for each in coupled}
            return {each.name: min(each.width, wanted[each.name]) for each in coupled}
        every = {each.name: scores[each.name].repeat(each.parts) for each in coupled}
        total = sum(widths[each.name] for each in coupled)
        best = best_channels(every, kept_channels(total, ratio, 1))
        return {each.name: rounded_up(best[each.name], each.width, multiples[each.name]) for each in coupled}

    def _recovered(self, narrower: nn.Module, dense: nn.Module, epochs: int, bench: Bench) -> nn.Module:
        if not epochs:
            return narrower
        if not self.distillation:
            return bench.fine_tune(narrower, epochs)
        teacher = Distillation(teacher=dense, weight=self.distillation, temperature=self.temperature)
        return bench.fine_tune(narrower, epochs, distillation=teacher)


def _example(bench: Bench) -> Tensor:
    return torch.zeros(1, *bench.data.input_shape)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's draws on the CPU within, and put the caller's random state back after."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _logits_shape(model: nn.Module, example: Tensor) -> tuple[int, ...]:
    with torch.inference_mode():
        return tuple(model(example).shape)
