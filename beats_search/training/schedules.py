"""Schedules: a position in training in, the factor on the learning rate out. Every public class is a part.

A position is the number of micro-batches taken before this one; all schedules are pure functions.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import final

__all__ = ["Constant", "Cosine", "Milestones", "OneCycle", "Step"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """The same learning rate throughout, after an optional linear warm-up."""

    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a warm-up before the beginning."""
        _refuse_warmup("constant", self.warmup_epochs)

    def factor(self, step: int, steps_per_epoch: int, epochs: int) -> float:  # noqa: ARG002 - schedules are called alike
        """Return the factor at micro-batch `step` of `epochs` of `steps_per_epoch`, counted from 0."""
        return _warmup(step, self.warmup_epochs * steps_per_epoch)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The learning rate times `gamma` every `step_epochs` epochs, after an optional linear warm-up."""

    step_epochs: int
    gamma: float = 0.1
    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        """Refuse steps of no length and factors that do not shrink to something."""
        if self.step_epochs < 1:
            raise ValueError(f"step.step_epochs needs to be at least 1, got {self.step_epochs}")
        _refuse_gamma("step", self.gamma)
        _refuse_warmup("step", self.warmup_epochs)

    def factor(self, step: int, steps_per_epoch: int, epochs: int) -> float:  # noqa: ARG002 - schedules are called alike
        """Return the factor at micro-batch `step` of `epochs` of `steps_per_epoch`, counted from 0."""
        drops = step // (self.step_epochs * steps_per_epoch)
        return _warmup(step, self.warmup_epochs * steps_per_epoch) * self.gamma**drops


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Milestones:
    """The learning rate times `gamma` after each of these `epochs`, after an optional linear warm-up."""

    epochs: tuple[int, ...]
    gamma: float = 0.1
    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        """Refuse epochs that do not ascend from 1 on, and factors that do not shrink to something."""
        if not self.epochs or any(later <= earlier for earlier, later in pairwise((0, *self.epochs))):
            rule = "milestones.epochs needs ascending whole numbers of at least 1"
            raise ValueError(f"{rule}, got {list(self.epochs)}")
        _refuse_gamma("milestones", self.gamma)
        _refuse_warmup("milestones", self.warmup_epochs)

    def factor(self, step: int, steps_per_epoch: int, epochs: int) -> float:  # noqa: ARG002 - schedules are called alike
        """Return the factor at micro-batch `step` of `epochs` of `steps_per_epoch`, counted from 0."""
        passed = bisect_right(self.epochs, step // steps_per_epoch)
        return _warmup(step, self.warmup_epochs * steps_per_epoch) * self.gamma**passed


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Cosine:
    """Half a cosine from the learning rate down to 0 (Loshchilov & Hutter 2017), after an optional linear warm-up."""

    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a warm-up before the beginning."""
        _refuse_warmup("cosine", self.warmup_epochs)

    def factor(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Return the factor at micro-batch `step` of `epochs` of `steps_per_epoch`, counted from 0."""
        warmup_steps = self.warmup_epochs * steps_per_epoch
        if step < warmup_steps:
            return _warmup(step, warmup_steps)
        return _cosine(1.0, 0.0, (step - warmup_steps) / (steps_per_epoch * epochs - warmup_steps))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OneCycle:
    """Up from 1/`start_divisor` to the learning rate and down to almost 0 (Smith & Topin 2018).

    As torch's `OneCycleLR`, but for momentum, which stays as it is. The rise takes `rise` of all
    micro-batches; the end is at 1/(`start_divisor` · `end_divisor`) of the learning rate.
    """

    rise: float = 0.3
    start_divisor: float = 25.0
    end_divisor: float = 1e4

    def __post_init__(self) -> None:
        """Refuse a rise outside training and divisors that are none."""
        if not 0 <= self.rise <= 1:
            raise ValueError(f"one_cycle.rise needs to be between 0 and 1, got {self.rise}")
        if not (self.start_divisor >= 1 and self.end_divisor >= 1):
            got = f"start_divisor={self.start_divisor}, end_divisor={self.end_divisor}"
            raise ValueError(f"one_cycle needs start_divisor >= 1 and end_divisor >= 1, got {got}")

    def factor(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Return the factor at micro-batch `step` of `epochs` of `steps_per_epoch`, counted from 0."""
        steps = steps_per_epoch * epochs
        start, peak, last = 1 / self.start_divisor, self.rise * steps - 1, steps - 1
        if step < peak:
            return _cosine(start, 1.0, step / peak)
        descent = last - peak
        return _cosine(1.0, start / self.end_divisor, (step - peak) / descent if descent else 0.0)


def _refuse_gamma(name: str, gamma: float) -> None:
    if not 0 < gamma <= 1:
        raise ValueError(f"{name}.gamma needs to be above 0 and at most 1, got {gamma}")


def _refuse_warmup(name: str, epochs: float) -> None:
    if not epochs >= 0:
        raise ValueError(f"{name}.warmup_epochs needs to be at least 0, got {epochs}")


def _warmup(step: int, warmup_steps: float) -> float:
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def _cosine(begin: float, end: float, share: float) -> float:
    return end + (begin - end) / 2 * (math.cos(math.pi * share) + 1)
