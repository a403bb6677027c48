"""Cost: a plan and a store in, roughly how long its trial would compute out; equal on every machine and at any hour.

Only ratios count, and a search that asks must get the same answer after a restart, so nothing is timed:
work is counted. What a trial spends beside training was about a second in trials of small networks
(export, accuracy, timing), and a batch of nothing about two milliseconds.
"""

from functools import lru_cache
from typing import Final

from beats_search.records.part import Part
from beats_search.records.plan import TrainingPlan, TrialPlan
from beats_search.trial.keys import recovery_epochs
from beats_search.trial.probe import count_macs
from beats_search.trial.recipe import load_data
from beats_search.trial.stages import epochs_left
from beats_search.trial.store import Store

PROBE_S: Final = 0.8
"""What probing a structure that is not known yet takes, on the scale of `cost`: most of it is the timing."""

_BESIDE_S: Final = 1.0
_BATCH_S: Final = 2e-3
_MACS_PER_S: Final = 3e10
_PASSES: Final = 3  # forward, and backward to inputs and to weights
_MOST_KEPT: Final = 4096


def cost(plan: TrialPlan, store: Store | None) -> float:
    """Return seconds of a trial on a machine that does not exist, less what is stored; above 0.

    Raises whatever building the model raises.
    """
    if store is None:
        epochs = plan.training.epochs + sum(recovery_epochs(part) for part in plan.compression)
    else:
        epochs = sum(epochs_left(plan, store))
    images, batch = len(load_data(plan.dataset).train), plan.training.batch_size
    work = _PASSES * _macs(plan.dataset, plan.model) * images / _MACS_PER_S
    return _BESIDE_S + epochs * (work + _BATCH_S * -(-images // batch))


@lru_cache(_MOST_KEPT)
def _macs(dataset: Part, model: Part) -> int:
    return count_macs(TrialPlan(dataset=dataset, model=model, training=TrainingPlan(epochs=1)))
