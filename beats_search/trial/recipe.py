"""The recipe's steps: each takes a plan and what came before, and gives what comes next.

Every random draw of a step comes from a seed of its own, derived from the plan's.
"""

import hashlib
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor, nn

from beats_search import plugins
from beats_search.measuring.quiet import ALONE, QuietWindow
from beats_search.records.column import Column
from beats_search.records.errors import TrialError
from beats_search.records.part import Part
from beats_search.records.plan import TrainingPlan, TrialPlan
from beats_search.tensors.data import DataBundle, to_float
from beats_search.tensors.network import with_preprocess
from beats_search.tensors.plain_weights import with_plain_weights
from beats_search.tensors.seams import Bench, DataSource, Distillation, FineTune, ModelFamily, Pace, Runtime, Technique
from beats_search.tensors.zeros import keeping_zeros
from beats_search.training.batch_norm import with_batch_norm
from beats_search.training.fit import fit

_SHOWN: Final = 5

_RECOVERY_LR = 0.3


@lru_cache(maxsize=1)
def load_data(part: Part) -> DataBundle:
    """Return a data set; the last one is kept in memory, since all trials of a run share it."""
    source: DataSource = plugins.make("datasets", part)
    data = source.load()
    if not isinstance(data, DataBundle):
        raise TrialError(f"data set {part.name!r} needs to give a DataBundle, got {type(data).__name__}")
    if int(data.train.labels.min()) == int(data.train.labels.max()):
        raise TrialError(
            f"data set {part.name!r} has one class only in its training split; there is nothing to tell apart"
        )
    return data


def build_model(plan: TrialPlan, data: DataBundle) -> nn.Module:
    """Return the untrained model from inputs as the user has them to logits, in eval mode.

    Raises TrialError when it does not yield a row of logits, one per class, for every input;
    ValueError when batch norms are to be added and there is no place for one.
    """
    family: ModelFamily = plugins.make("models", plan.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stage_seed(plan, "model"))
        network = family.build(data.network_shape, len(data.classes))
        if not isinstance(network, nn.Module):
            raise TrialError(f"model {plan.model.name!r} needs to give a torch module, got {type(network).__name__}")
        model = _run_once(plan, data, network)  # draws the weights of lazy layers, so with the same seed
    normalized = with_batch_norm(network, plan.training.batch_norm)
    return model if normalized is network else _run_normalized(plan, data, normalized)


def _run_once(plan: TrialPlan, data: DataBundle, network: nn.Module) -> nn.Module:
    """Return the network behind its preprocessing, in eval mode, after a first call that showed it right."""
    model, classes = with_preprocess(data.preprocess, network).eval(), len(data.classes)
    with torch.no_grad():  # inference_mode would leave lazy layers with weights that cannot be trained
        logits = model(torch.cat([example_of(data)] * 2))
    if not isinstance(logits, Tensor) or tuple(logits.shape) != (2, classes):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise TrialError(f"model {plan.model.name!r} needs to turn 2 inputs into logits of (2, {classes}), got {got}")
    return model


def _run_normalized(plan: TrialPlan, data: DataBundle, network: nn.Module) -> nn.Module:
    try:
        return _run_once(plan, data, network)
    except (RuntimeError, ValueError) as error:
        choice = plan.training.batch_norm
        raise TrialError(f"model {plan.model.name!r} cannot run with batch_norm: {choice}: {error}") from error


def compress(
    model: nn.Module, plan: TrialPlan, data: DataBundle, fine_tune: FineTune, window: QuietWindow = ALONE
) -> nn.Module:
    """Return the model after every technique of the plan, in their order."""
    for index in range(len(plan.compression)):
        model = apply_technique(model, plan, index, data, fine_tune, window)
    return model.eval()


def apply_technique(
    model: nn.Module, plan: TrialPlan, index: int, data: DataBundle, fine_tune: FineTune, window: QuietWindow = ALONE
) -> nn.Module:
    """Return the model after one technique of the plan, the `index`-th from 0.

    It computes when the window allows it; training again, which waits for its own batches and for
    others who train the like, is left to `fine_tune`. Where a technique before it says that its
    `zeros_stay`, training keeps them. Weights that the network computes, as with weight norm, are plain
    ones from here on.
    """
    before: list[Technique] = [plugins.make("compression", part) for part in plan.compression[:index]]
    technique: Technique = plugins.make("compression", plan.compression[index])
    zeros_stay = any(getattr(each, "zeros_stay", False) for each in before)
    train, seed = keeping_zeros(fine_tune) if zeros_stay else fine_tune, stage_seed(plan, f"compression {index}")

    def aside(model: nn.Module, epochs: int, /, *, distillation: Distillation | None = None) -> nn.Module:
        with window.pausing():
            return train(model, epochs, distillation=distillation)

    with window.pace():
        return technique.apply(with_plain_weights(model), Bench(data=data, fine_tune=aside, seed=seed))


def recovery(plan: TrialPlan, data: DataBundle, pace: Pace = nullcontext) -> FineTune:
    """Return the training that a technique may use: the plan's own, shorter, gentler, ending in small steps."""

    def fine_tune(model: nn.Module, epochs: int, /, *, distillation: Distillation | None = None) -> nn.Module:
        shorter, seed = recovery_plan(plan.training, epochs), stage_seed(plan, "recovery")
        return fit(model, data, shorter, seed=seed, pace=pace, distillation=distillation).model

    return fine_tune


def recovery_plan(training: TrainingPlan, epochs: int) -> TrainingPlan:
    """Return how a compressed model is trained again: a cosine from a part of the plan's rate.

    A whole schedule squeezed into the recovery beats its last part alone (Le & Hua 2021).
    """
    cosine = Part(name="cosine", settings=(("warmup_epochs", 0.0),))
    return replace(training, epochs=epochs, lr=_RECOVERY_LR * training.lr, schedule=cosine)


def runtime_of(plan: TrialPlan) -> Runtime:
    """Return the runtime of a plan."""
    runtime: Runtime = plugins.make("runtimes", plan.runtime)
    return runtime


def example_of(data: DataBundle) -> Tensor:
    """Return the first training input as float, with its batch dimension of 1."""
    return to_float(data.train.inputs[:1])


def stage_seed(plan: TrialPlan, stage: str) -> int:
    """Return the seed of one stage; other stages and other seeds give unrelated ones."""
    digest = hashlib.sha256(f"{plan.seed} {stage}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """What a report needs to know of a data set; `notices` say what is allowed and may surprise."""

    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    majority_share: float
    digest: str
    columns: tuple[Column, ...] = ()
    notices: tuple[str, ...] = ()


def data_facts(part: Part) -> DataFacts:
    """Return the facts of a data set; `digest` is equal for equal splits, whatever file they came from."""
    data = load_data(part)
    share = data.validation.labels.bincount().max().item() / len(data.validation)
    return DataFacts(
        classes=data.classes,
        input_shape=data.input_shape,
        majority_share=share,
        digest=data_digest(data),
        columns=data.columns,
        notices=tuple(_notices(data)),
    )


def _notices(data: DataBundle) -> Iterator[str]:
    """Yield a sentence for each split that lacks classes: nothing can be said of how well these are told apart."""
    for name, split in (("training", data.train), ("validation", data.validation), ("test", data.test)):
        counts = split.labels.bincount(minlength=len(data.classes)).tolist()
        lacking = [repr(label) for label, count in zip(data.classes, counts, strict=True) if not count]
        if lacking:
            some = ", ".join(lacking[:_SHOWN]) + (", …" if len(lacking) > _SHOWN else "")
            rest = "they cannot be learned" if name == "training" else "accuracy says nothing about them"
            yield f"the {name} data have no example of {len(lacking)} of {len(counts)} classes ({some}): {rest}"


def data_digest(data: DataBundle) -> str:
    """Return 16 hex digits of all inputs and labels."""
    found = hashlib.sha256()
    for split in (data.train, data.validation, data.test):
        found.update(split.inputs.contiguous().numpy().data)
        found.update(split.labels.contiguous().numpy().data)
    return found.hexdigest()[:16]
