"""Sample: a domain in, random plans of it out, as a random search would draw them."""

import random

from beats_search.records.plan import TrialPlan
from beats_search.search.domain import Domain, value_at
from beats_search.space.draw import Replay


def sample_plans(domain: Domain, count: int, seed: int) -> tuple[TrialPlan, ...]:
    """Return up to `count` different plans; fewer where the domain has no more."""
    shares = random.Random(seed)
    plans: dict[str, TrialPlan] = {}
    for _ in range(10 * count):
        values = {knob.path: value_at(knob, shares.random()) for knob in domain.knobs}
        plan = domain.draw(Replay(values))
        plans.setdefault(plan.fingerprint(), plan)
        if len(plans) == count:
            break
    return tuple(plans.values())
