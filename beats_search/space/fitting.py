"""Fitting: a space and a plan in, the values of the knobs that give the plan out; None where none do."""

from collections.abc import Iterable, Mapping

from beats_search.records.part import Part, Scalar
from beats_search.records.plan import TrialPlan
from beats_search.space.draw import fits
from beats_search.space.knobs import Block, Choice, Items, Leaf, Node, PartNode, Range, SearchSpace


def values_of(space: SearchSpace, plan: TrialPlan) -> Mapping[str, Scalar] | None:
    """Return values by path from which the space draws the plan; of equal options the first."""
    return _values(space.plan, plan)


def values_in(space: SearchSpace, plan: TrialPlan) -> Mapping[str, Scalar]:
    """Return values by path for those parts of a plan that the space allows; the others have none."""
    found = (_values(item, getattr(plan, key)) for key, item in space.plan.fields)
    return _joined(values or {} for values in found) or {}


def _values(node: Node, value: object) -> Mapping[str, Scalar] | None:
    match node:
        case Leaf():
            return {} if node.value == value and isinstance(node.value, bool) == isinstance(value, bool) else None
        case Range(path=path):
            return {path: value} if isinstance(value, int | float) and fits(node, value) else None
        case Choice():
            return _chosen(node, value)
        case PartNode():
            return _of_part(node, value)
        case Block():
            return _joined(_values(item, getattr(value, key)) for key, item in node.fields)
        case Items():
            return _of_items(node, value)


def _of_items(node: Items, value: object) -> Mapping[str, Scalar] | None:
    if not isinstance(value, tuple) or len(value) != len(node.items):
        return None
    return _joined(_values(item, inner) for item, inner in zip(node.items, value, strict=True))


def _chosen(knob: Choice, value: object) -> Mapping[str, Scalar] | None:
    for label, option in zip(knob.labels, knob.options, strict=True):
        inner = _values(option, value)
        if inner is not None:
            return {knob.path: label, **inner}
    return None


def _of_part(node: PartNode, value: object) -> Mapping[str, Scalar] | None:
    if not isinstance(value, Part) or value.name != node.name:
        return None
    settings = dict(value.settings)
    if settings.keys() != {key for key, _ in node.fields}:
        return None
    return _joined(_values(item, settings[key]) for key, item in node.fields)


def _joined(found: Iterable[Mapping[str, Scalar] | None]) -> Mapping[str, Scalar] | None:
    joined: dict[str, Scalar] = {}
    for values in found:
        if values is None:
            return None
        joined |= values
    return joined
