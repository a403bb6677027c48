"""Accumulation: gradients of micro-batches in, steps of any optimizer out, each region of a network at its own time.

The Beats method. Every region adds up its micro-gradients until they agree, or until the window is
full; then the optimizer steps on that region alone. The gradient of a local error may be mixed in.
With one optimizer, sums and no local error, where the weights would be if all were handed on,
θ - ηA, moves as if there were no windows at all: they cost at order η² only.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, final

import torch
from torch import Tensor, distributed, nn
from torch.nn import Parameter, functional
from torch.optim import LBFGS, Optimizer

from beats_search.records.outcome import RegionScore
from beats_search.records.plan import AccumulationPlan
from beats_search.training.local_error import LocalErrors, Loss, Scale, mixed
from beats_search.training.ranks import Ranks
from beats_search.training.regions import find_regions
from beats_search.training.stepping import step
from beats_search.training.tallies import Tally
from beats_search.training.triggers import agreements, due
from beats_search.training.windows import Gradients, Mode, Window, present, square_norms

Groups: TypeAlias = list[Gradients]
"""The gradients of each region, or of each region's head; empty where there is none."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RegionState:
    """A region as it stands: its fires so far, and ρ and the micro-batches of the window in progress."""

    name: str
    fires: int
    agreement: float
    staleness: int


@final
class Beats:
    """Steps any torch optimizer on those regions of a model whose accumulated gradients are due.

    Gradients live here between steps: `.grad` of the parameters is None whenever `step` returns, and
    what stands there when it is called is dropped. `updates` counts optimizer steps, `skipped` the
    micro-batches whose gradient was not finite and was left out, `skips_in_a_row` the last of them.
    """

    def __init__(  # noqa: PLR0913 - the settings of the method, each a word that its users know
        self,
        optimizer: Optimizer,
        model: nn.Module,
        *,
        window: int = 1,
        trigger: float | Literal["never"] = "never",
        local_error: float = 0.0,
        scope: Literal["region", "global"] = "region",
        mode: Mode = "mean",
        local_scale: Scale = "none",
        top_k: float = 1.0,
        clip: float = 0.0,
        scaler: torch.amp.GradScaler | None = None,
        group: distributed.ProcessGroup | None = None,
    ) -> None:
        """Begin with empty windows.

        `clip` is the largest norm of what is handed to the optimizer at once (0: any). With a
        `scaler`, losses are scaled, and gradients unscaled before they are accumulated. With a
        process `group`, all of its ranks fire together and hand on the mean of their gradients.
        Raises ValueError for settings outside their bounds, TypeError for an optimizer that wants a closure.
        """
        self._plan = AccumulationPlan(
            window=window,
            trigger=trigger,
            local_error=local_error,
            scope=scope,
            mode=mode,
            local_scale=local_scale,
            top_k=top_k,
        )
        _check(optimizer, clip)
        self.updates = self.skipped = self.skips_in_a_row = 0
        self._optimizer, self._clip, self._ranks = optimizer, clip, Ranks(group)
        self._scaler = scaler if scaler and scaler.is_enabled() else None
        self._regions = find_regions(model, _parameters_of(optimizer))
        self._parameters = [parameter for region in self._regions for parameter in region.parameters]
        self._windows = [Window() for _ in self._regions]
        self._of_heads = [Window() for _ in self._regions]
        self._tallies = [Tally() for _ in self._regions]
        self._local = LocalErrors(self._regions, optimizer) if local_error else None
        self._local_error = local_error
        self._at_once = self._plan.plain and window == 1 and top_k == 1 and not self._scaler and self._ranks.alone
        optimizer.zero_grad()

    @property
    def local_error(self) -> float:
        """The weight of the local errors, which may be set between steps; above 0 only if it was so at first."""
        return self._local_error

    @local_error.setter
    def local_error(self, weight: float) -> None:
        if not 0 <= weight <= 1:
            raise ValueError(f"local_error needs to be between 0 and 1, got {weight}")
        if weight and not (self._local and self._local.hears):
            raise ValueError(
                "local_error above 0 needs heads: give it when the method begins, and set it before close()"
            )
        self._local_error = weight

    @property
    def regions(self) -> tuple[RegionState, ...]:
        """The regions in the order of the network, as they stand."""
        found = agreements(self._windows, self._plan, list)  # of this rank alone: nobody else may be asking
        every = zip(self._regions, self._tallies, self._windows, found, strict=True)
        return tuple(
            RegionState(name=region.name, fires=tally.fires, agreement=rho, staleness=window.count)
            for region, tally, window, rho in every
        )

    @property
    def waiting(self) -> bool:
        """Whether any region holds micro-gradients that `flush` would hand on."""
        return any(window.count for window in self._windows)

    def step(self, logits: Tensor, labels: Tensor, *, loss: Loss = functional.cross_entropy) -> Tensor:
        """Take the micro-batch whose logits the model has just computed; return its loss, detached.

        The loss is passed backward, its gradient accumulated, and the regions that are due are
        updated. Local errors are of the same `loss`, between the heads' logits and the labels;
        ValueError when they need logits (n, classes) and get others.
        """
        _forget(self._parameters)  # what a step left that ended in an error, or somebody else
        value = loss(logits, labels)
        if self._at_once:
            self._step_at_once(value)
            return value.detach()
        gradients, of_heads = self._micro_gradients(value, logits, labels, loss)
        if self._scaler:
            self._unscale(self._scaler, [*gradients, *of_heads])
        self._take(gradients, of_heads)
        return value.detach()

    def flush(self) -> None:
        """Update every region that has accumulated anything, as at the end of training."""
        found = agreements(self._windows, self._plan, self._over_ranks)
        self._fire({index: found[index] for index, window in enumerate(self._windows) if window.count})

    def scores(self) -> tuple[RegionScore, ...]:
        """Return what happened in each region since this was asked last."""
        found = self.scores_so_far()
        for tally in self._tallies:
            tally.begin()
        return found

    def scores_so_far(self) -> tuple[RegionScore, ...]:
        """Return what happened in each region since `scores` was asked last, and go on counting."""
        return tuple(tally.score(region.name) for region, tally in zip(self._regions, self._tallies, strict=True))

    def close(self) -> None:
        """Take all hooks off the model and all heads from the optimizer; there are some where local errors are used."""
        if self._local:
            self._local.close()
            self._local_error = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the windows in progress, the counters, the heads and the optimizer's state."""
        return {
            "regions": self._shapes(),
            "windows": [window.state() for window in (*self._windows, *self._of_heads)],
            "heads": self._local.state() if self._local else {},
            "tallies": [tally.state() for tally in self._tallies],
            "counters": [self.updates, self.skipped, self.skips_in_a_row],
            "local_error": self._local_error,
            "optimizer": deepcopy(self._optimizer.state_dict()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; ValueError, and nothing changed, when it is of other regions or of longer windows."""
        self._check_fits(state)
        if self._local:
            self._local.load(state["heads"])
        self._optimizer.load_state_dict(state["optimizer"])
        for window, saved in zip((*self._windows, *self._of_heads), state["windows"], strict=True):
            window.load(saved, self._parameters[0].device)
        for tally, counts in zip(self._tallies, state["tallies"], strict=True):
            tally.load(counts)
        self.updates, self.skipped, self.skips_in_a_row = state["counters"]
        self._local_error = state["local_error"]

    def _shapes(self) -> dict[str, list[list[int]]]:
        return {region.name: [list(each.shape) for each in region.parameters] for region in self._regions}

    def _check_fits(self, state: Mapping[str, Any]) -> None:
        if state["regions"] != self._shapes():
            raise ValueError(f"this state is of the regions {state['regions']}, the model has {self._shapes()}")
        longest = max(window["count"] for window in state["windows"])
        if longest >= self._plan.window:
            raise ValueError(f"this state holds {longest} micro-batches, a window of {self._plan.window} holds fewer")
        if state["heads"] and not self._local:
            raise ValueError("this state has heads: begin with local_error above 0, and set it to 0 afterwards")

    def _step_at_once(self, value: Tensor) -> None:
        """Update all regions with this one micro-batch: the rest of this class, where nothing waits or is mixed."""
        if trainable := _trainable(self._parameters):
            torch.autograd.backward(value, inputs=trainable)
        if self._is_accepted(square_norms([[parameter.grad for parameter in self._parameters]])):
            for tally in self._tallies:
                tally.note(math.nan, 1)
            self._update(self._parameters)
        _forget(self._parameters)

    def _micro_gradients(self, value: Tensor, logits: Tensor, labels: Tensor, loss: Loss) -> tuple[Groups, Groups]:
        """Return the gradient of every region, mixed where it has a local error, and that of every head."""
        local, of_heads = self._local_gradients(logits, labels, loss)
        alone = self._local_error == 1 and self._plan.local_scale == "none"  # then the network's loss stays out
        passed = [index for index in range(len(self._regions)) if not (alone and index in local)]
        parameters = [each for index in passed for each in self._regions[index].parameters]
        found = iter(self._gradients(value, parameters))
        gradients: Groups = [[] for _ in self._regions]
        for index in passed:
            gradients[index] = [next(found) for _ in self._regions[index].parameters]
        for index, own in local.items():
            gradients[index] = mixed(gradients[index], own, self._local_error, self._plan.local_scale)
        return gradients, of_heads

    def _local_gradients(self, logits: Tensor, labels: Tensor, loss: Loss) -> tuple[dict[int, Gradients], Groups]:
        """Return the local gradients of those regions that have one, and the gradient of every head.

        The graph of the one forward pass serves all: a gradient by the parameters of a region alone
        takes what came before it as constant.
        """
        local: dict[int, Gradients] = {}
        of_heads: Groups = [[] for _ in self._regions]
        if self._local is None:
            return local, of_heads
        for index, region in enumerate(self._regions[:-1] if self._local_error else ()):
            own = self._local.loss(index, logits, labels, loss)
            if own is not None:
                count = len(region.parameters)
                found = self._gradients(own, [*region.parameters, *self._local.parameters(index)], keep_graph=True)
                if present(found[:count]):
                    local[index], of_heads[index] = found[:count], found[count:]
        self._local.forget()
        return local, of_heads

    def _gradients(self, value: Tensor, parameters: list[Parameter], *, keep_graph: bool = False) -> Gradients:
        """Return the gradient by each parameter, in the layout that the optimizer expects."""
        scaled = self._scaler.scale(value) if self._scaler else value
        if trainable := _trainable(parameters):
            torch.autograd.backward(scaled, inputs=trainable, retain_graph=keep_graph)
        found = [parameter.grad for parameter in parameters]
        _forget(parameters)
        return found

    def _unscale(self, scaler: torch.amp.GradScaler, groups: Groups) -> None:
        """Let the scaler undo its factor, in place, and learn whether that was too large."""
        parameters = [each for own in self._owners(groups) for each in own]
        for parameter, tensor in zip(parameters, [tensor for group in groups for tensor in group], strict=True):
            parameter.grad = tensor
        scaler.unscale_(self._optimizer)
        scaler.update()
        _forget(parameters)

    def _owners(self, groups: Groups) -> Iterator[Sequence[Parameter]]:
        """Yield the parameters that each group of gradients belongs to: of the regions, then of their heads."""
        yield from (region.parameters for region in self._regions)
        for index, group in enumerate(groups[len(self._regions) :]):
            yield self._local.parameters(index) if self._local and group else ()

    def _take(self, gradients: Groups, of_heads: Groups) -> None:
        squares = square_norms([*gradients, *of_heads])
        if not self._is_accepted(squares):
            return
        windows = (*self._windows, *self._of_heads)
        for window, gradient, square in zip(windows, (*gradients, *of_heads), squares, strict=True):
            if present(gradient) or (gradient and not self._ranks.alone):  # ranks count alike, whatever each has seen
                window.add(gradient, square)
        self._fire(due(self._windows, self._plan, self._over_ranks))

    def _is_accepted(self, squares: Sequence[float]) -> bool:
        """Tell whether a micro-gradient of these squared norms is finite, on all ranks; count it if it is not."""
        if math.isfinite(self._over_ranks([sum(squares)])[0]):
            self.skips_in_a_row = 0
            return True
        self.skipped += 1
        self.skips_in_a_row += not self._scaler  # a scaler finds its limit by passing it
        return False

    def _fire(self, due_now: Mapping[int, float]) -> None:
        """Step the optimizer on some regions and their heads, and leave all others as they are."""
        if not due_now:
            return
        fired: list[Parameter] = []
        heads: list[Parameter] = []
        for index, rho in due_now.items():
            window, of_head = self._windows[index], self._of_heads[index]
            self._tallies[index].note(rho, window.count)
            _hand(self._regions[index].parameters, window.take(self._plan.mode, self._plan.top_k))
            fired += self._regions[index].parameters
            if self._local and of_head.count:
                _hand(self._local.parameters(index), of_head.take(self._plan.mode, 1.0))
                heads += self._local.parameters(index)
        self._ranks.average_gradients([*fired, *heads])
        self._update(fired)
        _forget([*fired, *heads])

    def _update(self, fired: Sequence[Parameter]) -> None:
        """Step the optimizer with the gradients that parameters have; those of the network are clipped."""
        if self._clip:
            torch.nn.utils.clip_grad_norm_(fired, self._clip)
        step(self._optimizer)
        self.updates += 1

    def _over_ranks(self, scalars: list[float]) -> list[float]:
        return self._ranks.sums(scalars, self._parameters[0].device)


def _check(optimizer: Optimizer, clip: float) -> None:
    if not clip >= 0:
        raise ValueError(f"clip needs to be at least 0, got {clip}")
    if isinstance(optimizer, LBFGS):
        raise TypeError("accumulation needs an optimizer that steps without a closure, got LBFGS")


def _parameters_of(optimizer: Optimizer) -> list[Parameter]:
    return [parameter for settings in optimizer.param_groups for parameter in settings["params"]]


def _trainable(parameters: Sequence[Parameter]) -> list[Parameter]:
    """Return those parameters that are not frozen just now."""
    return [parameter for parameter in parameters if parameter.requires_grad]


def _hand(parameters: Sequence[Parameter], gradients: Gradients) -> None:
    """Give parameters their gradients."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient


def _forget(parameters: Sequence[Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None
