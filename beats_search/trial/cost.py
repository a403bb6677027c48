"""Cost: a plan and a store in, roughly how long its trial would compute out; equal on every machine and at any hour.

Only ratios count, and a search that asks must get the same answer after a restart, so nothing is timed:
work is counted: multiply-accumulates, the values that layers put out, which small networks wait for,
and calls of layers. The rates were fitted to epochs of resnets of width 4 to 64, cnns and mlps on
8x8 and 28x28 images, on one thread (Zen 4), which they tell to within a factor of 2. What a
trial spends beside training was about a second in trials of small networks (export, accuracy, timing).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from beats_search.records.part import Part
from beats_search.records.plan import TrainingPlan, TrialPlan
from beats_search.tensors.network import traffic
from beats_search.trial.keys import recovery_epochs
from beats_search.trial.probe import count_macs
from beats_search.trial.recipe import build_model, example_of, load_data
from beats_search.trial.stages import epochs_left
from beats_search.trial.store import Store

PROBE_S: Final = 0.5
"""What probing a structure that is not known yet takes, on the scale of `cost`: most of it is the timing."""

_BESIDE_S: Final = 0.6
_CALL_S: Final = 1.5e-4  # of a layer, forward and backward, whatever it computes
_MACS_PER_S: Final = 6e10
_VALUES_PER_S: Final = 3.3e8
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
    work = _work(plan.dataset, plan.model)
    each = _PASSES * work.macs / _MACS_PER_S + work.values / _VALUES_PER_S
    return _BESIDE_S + epochs * (images * each + -(-images // batch) * work.layers * _CALL_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What a network computes for one input."""

    macs: int
    values: int
    layers: int


@lru_cache(_MOST_KEPT)
def _work(dataset: Part, model: Part) -> _Work:
    plan = TrialPlan(dataset=dataset, model=model, training=TrainingPlan(epochs=1))
    data = load_data(dataset)
    values, layers = traffic(build_model(plan, data), example_of(data))
    return _Work(macs=count_macs(plan), values=values, layers=layers)
