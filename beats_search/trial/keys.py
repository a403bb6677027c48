"""Keys: a plan in, under which names the results of its stages are stored out; equal where the results are.

A key is a digest of all that determines a stage: the stage before it, its own settings, seeds, data, the
code that computes it, versions, and the kind of processor. Of a training, it holds the learning rates and
the weights of local errors of its epochs so far, and not their total number: a longer training that
begins alike goes through the same states.
"""

import hashlib
import json
import sys
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, cast, final

import torch

from beats_search.plugins import make, settings_class
from beats_search.records.idle import effective
from beats_search.records.part import Part
from beats_search.records.plain import Plain, to_plain
from beats_search.records.plan import AccumulationPlan, TrainingPlan, TrialPlan
from beats_search.tensors.data import DataBundle
from beats_search.training.devices import find_device
from beats_search.training.fit import steps_per_epoch
from beats_search.training.local_error import annealed
from beats_search.training.precision import has_bf16
from beats_search.trial.fingerprints import fingerprint
from beats_search.trial.recipe import data_digest, recovery_plan

_PACKAGE: Final = Path(__file__).parents[1]
_LIBRARIES: Final = ("beats-search", "torch", "torchvision", "torch-pruning")
_OWN: Final = "beats_search."
_COMPUTING: Final = ("compression", "models", "tensors", "training", "trial")
"""The packages of this one that decide what a stage computes."""

_IDLE: Final[Mapping[str, object]] = {"ratio": 0, "bits": 32}
"""Settings with which the techniques of this package return the model as it is."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PlanKeys:
    """The keys of a plan: `epochs`, of its training after each epoch, and `parts`, of each technique after it."""

    epochs: tuple[str, ...]
    parts: tuple[str, ...]


def keys_of(plan: TrialPlan, data: DataBundle) -> PlanKeys:
    """Return the keys of a plan on its data; what has no effect does not tell them apart.

    Raises ValueError for a device that is not here, and what the parts raise for their settings.
    """
    training = _effective(plan.training)
    root = _hashed(
        {
            "code": _code(),
            "libraries": _libraries(),
            "machine": _machine(find_device(training.device)),
            "data": _of_data(data),
            "model": _settings("models", plan.model),
            "seed": plan.seed,
            "training": _but_pace(training),
        }
    )
    method = training.accumulation
    steps = steps_per_epoch(len(data.train), training.batch_size)
    paces = _paces(training.schedule, (method.local_error, method.anneal), steps, training.epochs)
    epochs = tuple(_hashed({"root": root, "pace": pace}) for pace in paces)
    return PlanKeys(epochs=epochs, parts=_of_parts(plan, training, epochs[-1]))


def call_key(part: str, index: int) -> str:
    """Return the key of a technique's training, by the technique's key and the number of such trainings before."""
    return _hashed({"part": part, "call": index})


def is_idle(part: Part) -> bool:
    """Tell whether a technique of this package is set to return the model as it is."""
    technique = _made("compression", part)
    own = type(technique).__module__.startswith(_OWN)
    return own and any(getattr(technique, name, None) == value for name, value in _IDLE.items())


def recovery_epochs(part: Part) -> int:
    """Return the epochs that a technique asks for by its setting of that name, 0 without one."""
    epochs = getattr(_made("compression", part), "recovery_epochs", 0)
    return epochs if isinstance(epochs, int) and not is_idle(part) else 0


def _effective(training: TrainingPlan) -> TrainingPlan:
    return replace(training, accumulation=training.accumulation.effective())


def _of_parts(plan: TrialPlan, training: TrainingPlan, dense: str) -> tuple[str, ...]:
    """Return a key per technique; one that does nothing leaves the key as it was."""
    recovery = recovery_plan(training, 1)
    shared = {**_plain(recovery), "schedule": _settings("schedules", recovery.schedule)}
    found: list[str] = []
    for index, part in enumerate(plan.compression):
        before = found[-1] if found else dense
        settings = _settings("compression", effective(part))
        own: Plain = {"before": before, "index": index, "part": settings, "recovery": shared}
        found.append(before if is_idle(part) else _hashed(own))
    return tuple(found)


def _but_pace(training: TrainingPlan) -> Mapping[str, Plain]:
    """Return all settings of a training but those that `_paces` spells out."""
    method, defaults = training.accumulation, AccumulationPlan()
    paceless = replace(method, local_error=defaults.local_error, anneal=defaults.anneal)
    return _plain(replace(training, epochs=1, schedule=Part(name="constant"), accumulation=paceless))


def _plain(training: TrainingPlan) -> dict[str, Plain]:
    """Return the settings of a training, whichever of them were left at their defaults; the device is elsewhere."""
    settings = cast("dict[str, Plain]", to_plain(replace(training, device="auto")))
    return {**settings, "optimizer": _settings("optimizers", training.optimizer)}


@lru_cache(maxsize=1024)
def _paces(schedule: Part, local: tuple[float, float], steps: int, epochs: int) -> tuple[str, ...]:
    """Return, per epoch, a digest of the factors on the rate and of the weights of local errors up to its end."""
    factor = make("schedules", schedule).factor
    found, digests = hashlib.sha256(), []
    for epoch in range(epochs):
        span = range(epoch * steps, (epoch + 1) * steps)
        found.update(array("d", [factor(step, steps, epochs) for step in span]).tobytes())
        if local[0]:
            weights = (annealed(*local, (step + 1) / (steps * epochs)) for step in span)
            found.update(array("d", weights).tobytes())
        digests.append(found.hexdigest())
    return tuple(digests)


@lru_cache(maxsize=1)
def _of_data(data: DataBundle) -> str:
    """Return a digest of the splits and of what is done first to inputs."""
    first = fingerprint(data.preprocess)
    return _hashed([data_digest(data), list(data.input_shape), len(data.train), len(data.classes), first])


@lru_cache(maxsize=1024)
def _made(shelf: str, part: Part) -> Any:  # noqa: ANN401 - each shelf has a protocol of its own
    return make(shelf, part)


@lru_cache(maxsize=1024)
def _settings(shelf: str, part: Part) -> str:
    """Return a part with all its settings, defaults too; of one from outside also a digest of its source."""
    return f"{part.name} {_made(shelf, part)!r} {_source(shelf, part.name)}"


@cache
def _source(shelf: str, name: str) -> str:
    """Return a digest of the file that a part is from, if it is none of this package's own, as it is now."""
    module = name.partition(":")[0] if ":" in name else settings_class(shelf, name).__module__
    file = getattr(sys.modules.get(module), "__file__", None)
    if module.startswith(_OWN) or file is None:
        return ""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


@cache
def _code() -> str:
    """Return a digest of the sources that compute stages: after a change of them nothing stored is used again."""
    files = sorted(file for name in _COMPUTING for file in (_PACKAGE / name).rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@cache
def _libraries() -> tuple[str, ...]:
    return tuple(f"{name} {version(name)}" for name in _LIBRARIES)


@cache
def _machine(device: torch.device) -> Mapping[str, Plain]:
    """Return what decides how a device adds up: its kind and its instructions."""
    capabilities = torch.cpu.get_capabilities()
    kinds = {name: value for name, value in capabilities.items() if not name.startswith("num_")}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"device": name, "bf16": has_bf16(device), "cpu": repr(sorted(kinds.items()))}


def _hashed(value: object) -> str:
    text = json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
