"""Knobs: a plan whose leaves may be open, as a tree of fixed values, ranges, choices, parts and blocks."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

from beats_search.records.objective import Constraint, Objective
from beats_search.records.part import Scalar, Setting
from beats_search.records.plain import Plain, to_plain
from beats_search.records.search_plan import SearchPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A fixed value."""

    value: Setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A knob between two numbers, both included: continuous, in steps, or whole numbers."""

    path: str
    low: float
    high: float
    log: bool = False
    step: float | None = None
    integer: bool = False

    def __post_init__(self) -> None:
        """Refuse an empty range, a logarithm of nothing, and steps that miss the upper end."""
        if not self.low < self.high:
            raise ValueError(f"a range needs low < high, got low={self.low}, high={self.high}")
        if self.log and not self.low > 0:
            raise ValueError(f"a range with log: true needs low > 0, got low={self.low}")
        if self.step is None:
            return
        if self.log:
            raise ValueError("a range has log: true or a step, not both")
        if not self.step > 0:
            raise ValueError(f"a range needs step > 0, got step={self.step}")
        low, high, step = exact(self.low), exact(self.high), exact(self.step)
        if (high - low) % step:
            last = float(low + (high - low) // step * step)
            rule = "a range needs a step that leads from low to high exactly"
            raise ValueError(f"{rule}, got step={self.step}, which leads from {self.low} to {last:g}, not {self.high}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A knob with options; each has a label that a study can store."""

    path: str
    labels: tuple[Scalar, ...]
    options: tuple["Node", ...]

    def __post_init__(self) -> None:
        """Refuse a choice of nothing, and labels that a study could not tell apart (1 equals true)."""
        if not self.options or len(self.labels) != len(self.options):
            raise ValueError(f"a choice needs a label per option, got {len(self.labels)} and {len(self.options)}")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"a choice needs labels that differ, got {self.labels}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartNode:
    """A part whose settings may be open; defaults are filled in."""

    shelf: str
    name: str
    fields: tuple[tuple[str, "Node"], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A record, such as `TrainingPlan`, whose fields may be open."""

    record: type[Any]
    fields: tuple[tuple[str, "Node"], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """A list of parts."""

    items: tuple["Node", ...]


Node: TypeAlias = Leaf | Range | Choice | PartNode | Block | Items


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """What may be tried: an open `TrialPlan`, what counts, and how to search.

    `reference` pins knobs of trial 0 by dotted path; `file` and `text` are what was read. Where `target`
    is not empty, only machines of that kind may measure.
    """

    name: str
    seed: int
    plan: Block
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    reference: Mapping[str, Scalar]
    search: SearchPlan
    file: str
    text: str
    target: str = ""

    def canonical(self) -> str:
        """Return JSON text that is equal for two spaces exactly when they differ in `search` at most."""
        everything = {
            "name": self.name,
            "seed": self.seed,
            "plan": plain_node(self.plan),
            "objectives": to_plain(self.objectives),
            "constraints": to_plain(self.constraints),
            "reference": to_plain(self.reference),
        }
        return json.dumps(everything, sort_keys=True)


def label_of(value: Setting) -> Scalar:
    """Return what a study stores for an option: the value, a list as JSON text."""
    return json.dumps(value) if isinstance(value, tuple) else value


def plain_node(node: Node) -> Plain:
    """Return a tree as plain data without paths: equal for nodes that allow the same values."""
    match node:
        case Leaf(value=value):
            return to_plain(value)
        case Range():
            return {"low": node.low, "high": node.high, "log": node.log, "step": node.step, "integer": node.integer}
        case Choice(options=options):
            return {"choice": [plain_node(option) for option in options]}
        case PartNode(shelf=shelf, name=name, fields=fields):
            return {"part": [shelf, name], "settings": {key: plain_node(item) for key, item in fields}}
        case Block(fields=fields):
            return {key: plain_node(item) for key, item in fields}
        case Items(items=items):
            return [plain_node(item) for item in items]


def exact(number: float) -> Fraction:
    """Return a number as it is written in decimals, so that 0.3 is three steps of 0.1."""
    return Fraction(str(number))
