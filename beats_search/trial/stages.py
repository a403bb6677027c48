"""Stages: a plan and a store in, the plan's training and its recoveries out, none computed that the store has.

A key says where the result of a stage is; a stamp beside the result says from what it was computed,
to the bit. A result is used for what has its key and its stamp, so that a trial ends in the same
model with a store and without. What cannot be seen: state that a model's modules keep beside
their tensors, code of users that other modules import, and threads that a busy machine starved.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from typing import Any, final

import torch
from torch import nn

from beats_search.measuring.quiet import ALONE, QuietWindow
from beats_search.records.plan import TrialPlan
from beats_search.tensors.data import DataBundle
from beats_search.tensors.seams import Distillation, FineTune
from beats_search.training.checkpoint import (
    Checkpoint,
    Tensors,
    TrainingState,
    fits,
    from_saved,
    is_whole,
    restore,
    tensors_of,
    to_saved,
)
from beats_search.training.devices import find_device
from beats_search.training.precision import find_numerics
from beats_search.trial.fingerprints import fingerprint
from beats_search.trial.keys import call_key, is_idle, keys_of, recovery_epochs
from beats_search.trial.recipe import apply_technique, load_data
from beats_search.trial.store import Store

_Stamp = Mapping[str, Any]


@final
class StageTree:
    """The stages of one trial, and what of them a store has already; without one, all are computed.

    `reused_seconds` is what the work that was reused had taken when it was done, by stage.
    """

    def __init__(self, plan: TrialPlan, data: DataBundle, store: Store | None) -> None:
        """Begin with nothing reused."""
        self.reused_seconds: dict[str, float] = {}
        self._plan, self._data, self._store = plan, data, store
        self._keys = None if store is None else keys_of(plan, data)

    @contextmanager
    def training(self, model: nn.Module) -> Iterator[Checkpoint | None]:
        """Yield the checkpoint with which the plan trains an untrained model; wait while others train the like."""
        if self._store is None or self._keys is None or not is_whole(model):
            yield None
            return
        keys = self._keys.epochs
        prefixes = _Prefixes(self._store, keys, model, self._stamp(model))
        with nullcontext() if self._store.has(keys[-1]) else self._store.locked(keys[0]):
            yield prefixes
            prefixes.close()
        self._reused("training", prefixes.reused_seconds)

    def compressed(self, model: nn.Module, train: FineTune, window: QuietWindow = ALONE) -> nn.Module:
        """Return the trained model after every technique of the plan; `train` is asked for what is not stored."""
        for index in range(len(self._plan.compression)):
            calls: list[int] = []
            fine_tune = self._fine_tune(index, train, calls)
            model = apply_technique(model, self._plan, index, self._data, fine_tune, window)
            self._note(index, calls)
        return model.eval()

    def _fine_tune(self, index: int, train: FineTune, calls: list[int]) -> FineTune:
        """Return what trains again for one technique; it notes the epochs of every call."""
        if self._store is None or self._keys is None:
            return train
        store, part = self._store, self._keys.parts[index]

        def fine_tune(model: nn.Module, epochs: int, /, *, distillation: Distillation | None = None) -> nn.Module:
            key = call_key(part, len(calls))
            calls.append(epochs)
            if not is_whole(model):
                return train(model, epochs, distillation=distillation)
            stamp = {**self._stamp(model), **_lesson(epochs, distillation)}
            with store.locked(key):
                found = _recalled(store.get(key), model, stamp)
                if found is not None:
                    self._reused("recovery", found[1])
                    return found[0]
                began = time.perf_counter()
                trained = train(model, epochs, distillation=distillation)
                _keep(store, key, trained, {"stamp": stamp, "seconds": time.perf_counter() - began})
                return trained

        return fine_tune

    def _note(self, index: int, calls: list[int]) -> None:
        """Store how often a technique trained, which a plan does not tell."""
        if self._store is None or self._keys is None or is_idle(self._plan.compression[index]):
            return
        key, noted = self._keys.parts[index], {"epochs": calls}
        if self._store.get(key) != noted:
            self._store.put(key, noted)

    def _stamp(self, model: nn.Module) -> _Stamp:
        """Return what a training begins with: the model to the bit, and the number of threads that will add up."""
        return {"model": fingerprint(model), "threads": self._threads(model)}

    def _threads(self, model: nn.Module) -> int:
        count, training, shape = torch.get_num_threads(), self._plan.training, self._data.input_shape
        if count == 1:
            return 1
        device = find_device(training.device)
        numerics = find_numerics(training.precision, deepcopy(model).to(device), (training.batch_size, *shape), device)
        return count if numerics.parallel else 1

    def _reused(self, stage: str, seconds: float) -> None:
        if seconds:
            self.reused_seconds[stage] = self.reused_seconds.get(stage, 0.0) + seconds


def epochs_left(plan: TrialPlan, store: Store) -> tuple[int, int]:
    """Return the epochs that a plan still has to train, dense and in recoveries, with what is stored now.

    Nothing is built or computed. Where it is not known yet how often a technique trains again, its
    recovery epochs count. Raises ValueError for a device that is not here.
    """
    keys, epochs = keys_of(plan, load_data(plan.dataset)), plan.training.epochs
    reached = next((epoch for epoch in range(epochs, 0, -1) if store.has(keys.epochs[epoch - 1])), 0)
    recovery = 0
    for part, key in zip(plan.compression, keys.parts, strict=True):
        if not is_idle(part):
            noted = store.get(key)
            calls = [recovery_epochs(part)] if noted is None else noted["epochs"]
            recovery += sum(each for index, each in enumerate(calls) if not store.has(call_key(key, index)))
    return epochs - reached, recovery


@final
class _Prefixes:
    """A checkpoint in a store: after the epochs 1, 2, 4, 8 … and the last one that was reached."""

    def __init__(self, store: Store, keys: tuple[str, ...], model: nn.Module, stamp: _Stamp) -> None:
        self.reused_seconds = 0.0
        self._store, self._keys, self._model, self._stamp = store, keys, model, stamp
        self._held: TrainingState | None = None

    def latest(self) -> TrainingState | None:
        """Return the state after the last epoch that is stored of a training that begins with the same model."""
        for key in reversed(self._keys):
            entry = self._store.get(key)
            if entry is None or entry["stamp"] != self._stamp or not fits(self._model, entry["state"]["model"]):
                continue
            state = from_saved(entry["state"])
            self.reused_seconds = sum(score.seconds for score in state.curve)
            return state
        return None

    def keep(self, state: TrainingState) -> None:
        """Store a state, or hold it until there is one after it."""
        self._held = state
        if state.epoch & (state.epoch - 1) == 0 or state.epoch == len(self._keys):
            self.close()

    def close(self) -> None:
        """Store the state that is held, if there is one."""
        if self._held is not None:
            entry = {"stamp": self._stamp, "state": to_saved(self._held)}
            self._store.put(self._keys[self._held.epoch - 1], entry)
        self._held = None


def _lesson(epochs: int, distillation: Distillation | None) -> _Stamp:
    """Return what a recovery is taught, beside the plan."""
    if distillation is None:
        return {"epochs": epochs}
    return {
        "epochs": epochs,
        "teacher": fingerprint(distillation.teacher),
        "weight": distillation.weight,
        "temperature": distillation.temperature,
    }


def _recalled(entry: Mapping[str, Any] | None, model: nn.Module, stamp: _Stamp) -> tuple[nn.Module, float] | None:
    """Return a copy of the model as a stored recovery left it, and the seconds that it took; None if it is another."""
    if entry is None or entry["stamp"] != stamp or not fits(model, entry["tensors"]):
        return None
    recovered = deepcopy(model)
    tensors: Tensors = entry["tensors"]
    restore(recovered, tensors)
    recovered.zero_grad()
    return recovered.to("cpu").to(memory_format=torch.contiguous_format).eval(), entry["seconds"]


def _keep(store: Store, key: str, trained: nn.Module, beside: Mapping[str, object]) -> None:
    if is_whole(trained):
        store.put(key, {**beside, "tensors": {name: each.detach() for name, each in tensors_of(trained).items()}})
