"""The package's own `fit`: a task in, a trained network's accuracy out."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Final, final

import torch
from torch import nn

from beats_search.datasets.mnist import Mnist
from beats_search.records.outcome import EpochScore
from beats_search.records.part import Part
from beats_search.records.plan import TrainingPlan
from beats_search.tensors.network import with_preprocess
from beats_search.training.fit import fit
from throughput_records import BATCH, LR, OurLoop, Task
from throughput_stopwatch import Stopwatch

_NOTHING: Final = nullcontext()


def prepare_ours(task: Task, loop: OurLoop) -> Callable[[nn.Module, Stopwatch], float]:
    """Read the data, and return the training to time: a network and a watch in, its validation accuracy out."""
    data = Mnist(root=task.folder, limit=task.images).load()
    plan = TrainingPlan(
        epochs=task.epochs,
        batch_size=BATCH,
        optimizer=Part(name="adam"),
        lr=LR,
        accumulation=loop.accumulation,
        precision=loop.precision,
        device="cpu",
    )

    def train(network: nn.Module, watch: Stopwatch) -> float:
        model = with_preprocess(data.preprocess, network)
        timing = Timing(watch)
        trained = fit(model, data, plan, seed=task.seed, pace=timing.pace, keep_going=timing.keep_going)
        return trained.curve[-1].accuracy

    return train


@final
class Timing:
    """Tells training from validation by the seams of `fit`: a batch in inference mode is validation."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch
        self._validating = False

    def pace(self) -> AbstractContextManager[object]:
        if not self._validating and torch.is_inference_mode_enabled():
            self._validating = True
            self._watch.switch("validation")
        return _NOTHING

    def keep_going(self, _: EpochScore) -> bool:
        self._validating = False
        self._watch.switch("training")
        return True
