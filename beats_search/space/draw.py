"""Draw: an open plan and someone who suggests values in, a `TrialPlan` out.

`Suggest` is the seam to whoever chooses: a study's trial, the recorded values of an old one, or a
test. Knobs inside an option are asked for only where that option was chosen.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final, Protocol, cast, final

from beats_search.records.part import Part, Scalar, Setting
from beats_search.records.plan import TrialPlan
from beats_search.space import ranges
from beats_search.space.knobs import Block, Choice, Items, Leaf, Node, PartNode, Range, SearchSpace

_REFERENCE_COMPRESSION: Final = ("compression", Items(items=()))
_MOST_BUILT: Final = 32
"""So many networks are built for one knob, at most, to find out which is the largest."""

_FULL_PRECISION: Final[Mapping[str, Scalar]] = {"precision": "fp32", "linear_bits": 32}
"""Settings of runtimes by which nothing is computed or stored in less than the model has."""


class Suggest(Protocol):
    """Chooses a value for each knob by its dotted path."""

    def real(self, path: str, low: float, high: float, *, log: bool, step: float | None) -> float:
        """Return a number from `low` to `high`."""

    def integer(self, path: str, low: int, high: int, *, log: bool, step: int | None) -> int:
        """Return a whole number from `low` to `high`."""

    def choice(self, path: str, labels: tuple[Scalar, ...]) -> int:
        """Return an index into `labels`."""


def draw(space: SearchSpace, suggest: Suggest) -> TrialPlan:
    """Return the plan in which every knob has the value that `suggest` gives it."""
    return cast("TrialPlan", build(space.plan, suggest))


def build(node: Node, suggest: Suggest) -> object:
    """Return the value of a node: a setting, a part, a record or a tuple of parts."""
    match node:
        case Leaf(value=value):
            return value
        case Range():
            return _number(node, suggest)
        case Choice():
            return build(node.options[suggest.choice(node.path, node.labels)], suggest)
        case PartNode():
            settings = tuple((key, cast("Setting", build(item, suggest))) for key, item in node.fields)
            return Part(name=node.name, settings=settings)
        case Block():
            return node.record(**{key: build(item, suggest) for key, item in node.fields})
        case Items():
            return tuple(build(item, suggest) for item in node.items)


def _number(knob: Range, suggest: Suggest) -> float:
    if knob.integer:
        step = None if knob.step is None else int(knob.step)
        return int(suggest.integer(knob.path, int(knob.low), int(knob.high), log=knob.log, step=step))
    value = float(suggest.real(knob.path, knob.low, knob.high, log=knob.log, step=knob.step))
    return value + 0.0  # minus zero becomes zero, so that equal plans have equal fingerprints


@final
class Replay:
    """A `Suggest` that answers recorded values by path.

    Raises LookupError when a value is missing, ValueError when it is one that the knob no longer allows.
    """

    def __init__(self, values: Mapping[str, Scalar]) -> None:
        """Keep the recorded values; a choice is recorded by its label."""
        self._values = values

    def real(self, path: str, low: float, high: float, *, log: bool, step: float | None) -> float:
        """Return the recorded number."""
        return self._number(Range(path=path, low=low, high=high, log=log, step=step))

    def integer(self, path: str, low: int, high: int, *, log: bool, step: int | None) -> int:
        """Return the recorded whole number."""
        return int(self._number(Range(path=path, low=low, high=high, log=log, step=step, integer=True)))

    def choice(self, path: str, labels: tuple[Scalar, ...]) -> int:
        """Return the index of the recorded label."""
        value = self._recorded(path)
        index = index_of(value, labels)
        if index is None:
            raise ValueError(f"{path} is one of {_labels_in_words(labels)}, got {value!r}")
        return index

    def _number(self, knob: Range) -> float:
        value = self._recorded(knob.path)
        if not fits(knob, value):
            raise ValueError(f"{knob.path} is in {knob_in_words(knob)}, got {value!r}")
        return cast("float", value)

    def _recorded(self, path: str) -> Scalar:
        if path not in self._values:
            raise LookupError(f"there is no recorded value for {path}")
        return self._values[path]


def fits(knob: Range | Choice, value: Scalar) -> bool:
    """Tell whether a knob allows a value; of a choice, the label."""
    if isinstance(knob, Choice):
        return index_of(value, knob.labels) is not None
    numbers = int if knob.integer else int | float
    return isinstance(value, numbers) and not isinstance(value, bool) and ranges.allows(knob, value)


def index_of(value: Scalar, labels: tuple[Scalar, ...]) -> int | None:
    """Return where a label is, None when it is none; `true` is not 1."""
    is_bool = isinstance(value, bool)
    same = (index for index, label in enumerate(labels) if label == value and isinstance(label, bool) == is_bool)
    return next(same, None)


def reference_plan(space: SearchSpace, macs: Callable[[TrialPlan], int]) -> TrialPlan:
    """Return the plan of trial 0: what the space pins, the largest model, no compression, and full precision.

    A runtime computes in less only where `reference:` pins that. Knobs of the model take the values with
    the most `macs` (coordinate ascent over options and both ends of ranges, called once per plan; of
    hundreds of options over some, the smallest and the largest number among them); other knobs their
    first option or (logarithmic) midpoint.
    """
    plain = tuple(_REFERENCE_COMPRESSION if key == "compression" else (key, item) for key, item in space.plan.fields)
    uncompressed = replace(space, plan=replace(space.plan, fields=plain))
    plan = draw(uncompressed, _Preferring(_most_macs(uncompressed, macs)))
    pinned = {path.rpartition(".")[2] for path in space.reference if path.startswith("runtime.")}
    full = {name: value for name, value in _FULL_PRECISION.items() if name not in pinned}
    settings = tuple((name, full.get(name, value)) for name, value in plan.runtime.settings)
    return replace(plan, runtime=replace(plan.runtime, settings=settings))


def knobs(space: SearchSpace) -> tuple[Range | Choice, ...]:
    """Return every knob in the order in which it would be asked for, also the conditional ones."""
    return tuple(knobs_in(space.plan))


def knobs_in(node: Node) -> Iterator[Range | Choice]:
    """Yield every knob of a tree, outer ones first."""
    if isinstance(node, Range | Choice):
        yield node
    for child in _children(node):
        yield from knobs_in(child)


def count_plans(space: SearchSpace) -> int | None:
    """Return how many plans can be drawn, None when a range is continuous."""
    return _count(space.plan)


def grid_points(space: SearchSpace, points: int) -> Iterator[Mapping[str, Scalar]]:
    """Return every combination of knob values by path, a range at `points` values.

    Conditional knobs are there only where their option is chosen. ValueError for no points.
    """
    if points < 1:
        raise ValueError(f"a grid needs at least 1 point per range, got {points}")
    return _grid(space.plan, points)


def knob_in_words(knob: Range | Choice) -> str:
    """Return what a knob allows: `0.01 … 0.5 (log)`, `16 | 32 | 64`."""
    if isinstance(knob, Choice):
        return _labels_in_words(knob.labels)
    low, high, step = (str(number).removesuffix(".0") for number in (knob.low, knob.high, knob.step))
    manner = " (log)" if knob.log else "" if knob.step is None else f" (step {step})"
    return f"{low} … {high}{manner}"


def _labels_in_words(labels: tuple[Scalar, ...]) -> str:
    words = {None: "null", True: "true", False: "false"}
    return " | ".join(words[label] if label is None or isinstance(label, bool) else str(label) for label in labels)


@final
class _Preferring:
    """A `Suggest` that gives preferred values where there are some, else a default; notes what it is asked."""

    def __init__(self, preferred: Mapping[str, Scalar]) -> None:
        self._preferred = preferred
        self.asked: dict[str, tuple[Scalar, ...]] = {}

    def real(self, path: str, low: float, high: float, *, log: bool, step: float | None) -> float:
        return self._number(Range(path=path, low=low, high=high, log=log, step=step))

    def integer(self, path: str, low: int, high: int, *, log: bool, step: int | None) -> int:
        return int(self._number(Range(path=path, low=low, high=high, log=log, step=step, integer=True)))

    def choice(self, path: str, labels: tuple[Scalar, ...]) -> int:
        self.asked[path] = labels
        return (index_of(self._preferred[path], labels) or 0) if path in self._preferred else 0

    def _number(self, knob: Range) -> float:
        self.asked[knob.path] = (knob.low, knob.high)
        preferred = self._preferred.get(knob.path)
        return ranges.middle(knob) if preferred is None else cast("float", preferred)


def _most_macs(space: SearchSpace, macs: Callable[[TrialPlan], int]) -> Mapping[str, Scalar]:
    """Return the pins, and the values of the model's other knobs that have the most MACs, one knob at a time."""
    chosen = dict(space.reference)
    known: dict[str, int] = {}

    def cost(values: Mapping[str, Scalar]) -> int:
        plan = draw(space, _Preferring(values))
        if plan.fingerprint() not in known:
            known[plan.fingerprint()] = macs(plan)
        return known[plan.fingerprint()]

    previous: dict[str, Scalar] | None = None
    while chosen != previous:
        previous = chosen
        for path, candidates in _free_model_knobs(space, chosen):
            changed = [chosen | {path: value} for value in candidates]
            chosen = max([chosen, *changed], key=cost)  # the first of equals: no change without a gain
    return chosen


def _free_model_knobs(space: SearchSpace, chosen: Mapping[str, Scalar]) -> list[tuple[str, tuple[Scalar, ...]]]:
    suggest = _Preferring(chosen)
    draw(space, suggest)
    asked = suggest.asked.items()
    free = (item for item in asked if item[0].partition(".")[0] == "model" and item[0] not in space.reference)
    return [(path, _some(labels)) for path, labels in free]


def _some(labels: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
    """Return the labels, of too many of them the first and the last and some between, numbers in their order."""
    if len(labels) <= _MOST_BUILT:
        return labels
    numbers = sorted(label for label in labels if isinstance(label, int | float))
    ordered = numbers if len(numbers) == len(labels) else labels
    return tuple(ordered[index * (len(ordered) - 1) // (_MOST_BUILT - 1)] for index in range(_MOST_BUILT))


def _children(node: Node) -> tuple[Node, ...]:
    match node:
        case Leaf() | Range():
            return ()
        case Choice(options=options):
            return options
        case PartNode(fields=fields) | Block(fields=fields):
            return tuple(item for _, item in fields)
        case Items(items=items):
            return items


def _count(node: Node) -> int | None:
    if isinstance(node, Range):
        return ranges.size(node)
    total = 0 if isinstance(node, Choice) else 1
    for child in _children(node):
        count = _count(child)
        if count is None:
            return None
        total = total + count if isinstance(node, Choice) else total * count
    return total


def _grid(node: Node, points: int) -> Iterator[Mapping[str, Scalar]]:
    match node:
        case Range(path=path):
            yield from ({path: value} for value in ranges.evenly(node, points))
        case Choice(path=path, labels=labels, options=options):
            for label, option in zip(labels, options, strict=True):
                yield from ({path: label, **inner} for inner in _grid(option, points))
        case _:
            yield from _combined(_children(node), points)


def _combined(nodes: tuple[Node, ...], points: int) -> Iterator[Mapping[str, Scalar]]:
    if not nodes:
        yield {}
        return
    for first in _grid(nodes[0], points):
        yield from ({**first, **rest} for rest in _combined(nodes[1:], points))
