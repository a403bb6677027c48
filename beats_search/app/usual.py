"""Usual: a space and its reference in, the values that the reference has for the knobs of the space out.

The reference is not compressed, and a technique of the space may have settings with which it does
nothing: with these the reference is a plan of the space, and what it came to is known of that plan.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice, product
from typing import Final

from beats_search.records.part import Scalar
from beats_search.records.plan import TrialPlan
from beats_search.search.domain import Domain
from beats_search.space.draw import Replay, draw, knobs, knobs_in
from beats_search.space.fitting import values_in
from beats_search.space.knobs import Choice, Items, Range, SearchSpace
from beats_search.trial.keys import is_idle

_MOST_TRIED: Final = 256


def starting_at(domain: Domain, space: SearchSpace, reference: TrialPlan) -> Domain:
    """Return the domain of a space with what a sampler may know of the reference."""
    return replace(domain, usual=usual_values(space, reference), reference=values_of_reference(space, reference))


def usual_values(space: SearchSpace, reference: TrialPlan) -> Mapping[str, Scalar]:
    """Return the reference's values by path, without those of knobs that it has none for."""
    found = dict(values_in(space, reference))
    techniques = dict(space.plan.fields).get("compression")
    if isinstance(techniques, Items):
        for index, technique in enumerate(techniques.items):
            found |= _idle(space, index, tuple(knobs_in(technique)))
    return found


def values_of_reference(space: SearchSpace, reference: TrialPlan) -> Mapping[str, Scalar] | None:
    """Return values with which the space draws a plan that does what the reference does, None where it draws none."""
    values = usual_values(space, reference)
    try:
        plan = draw(space, Replay(values))
    except LookupError:
        return None
    working = tuple(part for part in plan.compression if not is_idle(part))
    return values if replace(plan, compression=working) == reference else None


def _idle(space: SearchSpace, index: int, own: tuple[Range | Choice, ...]) -> Mapping[str, Scalar]:
    """Return values for a technique's own knobs with which it does nothing, none where there are no such values."""
    others = {knob.path: next(_candidates(knob)) for knob in knobs(space)}
    for values in islice(product(*map(_candidates, own)), _MOST_TRIED):
        chosen = dict(zip([knob.path for knob in own], values, strict=True))
        if is_idle(draw(space, Replay(others | chosen)).compression[index]):
            return chosen
    return {}


def _candidates(knob: Range | Choice) -> Iterator[Scalar]:
    """Yield the labels of a choice, and the ends of a range."""
    if isinstance(knob, Choice):
        yield from knob.labels
        return
    yield from (int(end) if knob.integer else end for end in (knob.low, knob.high))
