"""Fit: a model, data and a training plan in; a trained copy of the model and its learning curve out.

The data stay in memory as tensors, on the device; a batch is one indexing operation, and nothing is
done per image. All randomness is drawn from the seed, and the caller's random state is not touched:
equal seeds on equal machines give equal weights, bit for bit, as long as `threads` gives none up,
since sums over other numbers of threads are rounded otherwise. The process is told to keep the
memory that it frees (`memory`).
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Final, Protocol, final

import torch
from torch import Generator, Tensor, nn
from torch.backends import cudnn
from torch.nn import functional
from torch.optim import Optimizer

from beats_search.plugins import make
from beats_search.records.errors import DivergedError
from beats_search.records.outcome import EpochScore, RegionScore
from beats_search.records.plan import TrainingPlan
from beats_search.tensors.data import DataBundle, Split, to_float
from beats_search.tensors.seams import Distillation, KeepGoing, Pace
from beats_search.training.accumulation import Beats
from beats_search.training.accuracy import accuracy
from beats_search.training.augmentation import augment
from beats_search.training.averaging import WeightAverage
from beats_search.training.checkpoint import (
    Checkpoint,
    TrainingState,
    copied,
    random_states,
    restore,
    set_random_states,
    tensors_of,
)
from beats_search.training.devices import find_device
from beats_search.training.distillation import Objective, objective
from beats_search.training.local_error import annealed
from beats_search.training.memory import keep_freed_memory
from beats_search.training.pooling import arrange_as, pool_first
from beats_search.training.precision import Numerics, find_numerics
from beats_search.training.threads import Threads

_MOST_SKIPS: Final = 10
_GATHERED_BYTES: Final = 1 << 22


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A trained model on the CPU in eval mode, and how it got there, epoch by epoch.

    `stopped_at` is the epoch, counted from 1, after which `keep_going` said no; None if it never did.
    """

    model: nn.Module
    curve: tuple[EpochScore, ...]
    stopped_at: int | None


def always(score: EpochScore) -> bool:  # noqa: ARG001 - the simplest of the `KeepGoing`
    """Keep going whatever the score."""
    return True


def fit(  # noqa: PLR0913 - the three seams and the teacher are arguments of their own
    model: nn.Module,
    data: DataBundle,
    plan: TrainingPlan,
    *,
    seed: int,
    keep_going: KeepGoing = always,
    pace: Pace = nullcontext,
    checkpoint: Checkpoint | None = None,
    distillation: Distillation | None = None,
) -> Trained:
    """Return a trained copy of `model`, which maps float inputs in [0, 1] to logits and stays as it is.

    `pace` makes the context of every batch, training and validation. A `checkpoint` says where to go on
    and is given every epoch's state; weights and curve are those of a training that began at the
    beginning, and `keep_going` is asked from the last epoch on that is not trained again. With a
    `distillation` the loss has a part of the distance to a teacher, as it is too for the local errors.
    Raises DivergedError when the loss or a logit is not a finite number, ValueError for a device that
    is not here and for a state of another training.
    """
    device = find_device(plan.device)
    validation = _on(data.validation, device)
    with _seeded(seed, device) as generator:
        run = _begin(model, data.train, plan, generator, pace, distillation)
        with run.threads.held(), closing(run.beats):
            curve, stopped_at = _train(run, validation, keep_going, checkpoint)
    return Trained(model=_at_home(run.result, model), curve=curve, stopped_at=stopped_at)


class _Schedule(Protocol):
    def factor(self, step: int, steps_per_epoch: int, epochs: int) -> float: ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What stays the same from one micro-batch to the next, though the weights within it move."""

    model: nn.Module
    train: Split
    plan: TrainingPlan
    optimizer: Optimizer
    beats: Beats
    average: WeightAverage | None
    schedule: _Schedule
    objective: Objective
    numerics: Numerics
    threads: Threads
    generator: Generator
    pace: Pace

    @property
    def result(self) -> nn.Module:
        """The model that is evaluated: with the averaged weights where the plan asks for them."""
        return self.average.model if self.average else self.model

    def lr(self, step: int, steps_per_epoch: int) -> float:
        """Return the learning rate at a micro-batch, counted from 0 over all epochs."""
        return self.plan.lr * self.schedule.factor(step, steps_per_epoch, self.plan.epochs)

    def set_pace(self, step: int, steps_per_epoch: int) -> None:
        """Set learning rate and weight of the local errors for a micro-batch."""
        for settings in self.optimizer.param_groups:
            settings["lr"] = self.lr(step, steps_per_epoch)
        accumulation = self.plan.accumulation
        if accumulation.local_error:
            done = (step + 1) / (steps_per_epoch * self.plan.epochs)
            self.beats.local_error = annealed(accumulation.local_error, accumulation.anneal, done)


def _begin(
    model: nn.Module,
    train: Split,
    plan: TrainingPlan,
    generator: Generator,
    pace: Pace,
    distillation: Distillation | None,
) -> _Run:
    keep_freed_memory()
    device = generator.device
    trainee = deepcopy(model).to(device)
    pool_first(trainee)
    numerics = find_numerics(plan.precision, trainee, (plan.batch_size, *train.inputs.shape[1:]), device)
    trainee = numerics.prepared(trainee)
    parameters = [parameter for parameter in trainee.parameters() if parameter.requires_grad]
    optimizer: Optimizer = make("optimizers", plan.optimizer).make(parameters, plan.lr)
    plain = partial(functional.cross_entropy, label_smoothing=plan.label_smoothing)
    average = WeightAverage(trainee, plan.ema) if plan.ema else None  # a copy, made before there are hooks to copy
    return _Run(
        model=trainee,
        train=_on(train, device),
        plan=plan,
        optimizer=optimizer,
        beats=_beats(optimizer, trainee, plan),
        average=average,
        schedule=make("schedules", plan.schedule),
        objective=objective(plain, distillation, numerics, device),
        numerics=numerics,
        threads=Threads(parallel=numerics.parallel),
        generator=generator,
        pace=pace,
    )


def _beats(optimizer: Optimizer, model: nn.Module, plan: TrainingPlan) -> Beats:
    settings = plan.accumulation
    return Beats(
        optimizer,
        model,
        window=settings.window,
        trigger=settings.trigger,
        local_error=settings.local_error,
        scope=settings.scope,
        mode=settings.mode,
        local_scale=settings.local_scale,
        top_k=settings.top_k,
        clip=plan.clip,
    )


def _train(
    run: _Run, validation: Split, keep_going: KeepGoing, checkpoint: Checkpoint | None
) -> tuple[tuple[EpochScore, ...], int | None]:
    """Train in place; return the scores, and the epoch after which training was ended, if it was.

    A state is of before the last update of what is left in windows: a longer training goes on from there.
    """
    curve = _resumed(run, checkpoint.latest() if checkpoint else None)
    for epoch in range(max(1, len(curve)), run.plan.epochs + 1):
        last = epoch == run.plan.epochs
        if epoch > len(curve):
            curve.append(_scored_epoch(run, epoch, validation, flushed=last and not checkpoint))
            if checkpoint:
                checkpoint.keep(_state(run, curve))
        if last:
            curve[-1] = _finished(run, curve[-1], validation)
        if not keep_going(curve[-1]):
            _flush(run)
            return tuple(curve), epoch
    return tuple(curve), None


def _resumed(run: _Run, state: TrainingState | None) -> list[EpochScore]:
    """Put the run where a state left it, in place; return the scores so far."""
    if state is None:
        return []
    if state.epoch > run.plan.epochs:
        raise ValueError(f"a training of {run.plan.epochs} epochs cannot go on after epoch {state.epoch}")
    restore(run.model, state.model)
    run.beats.load_state_dict(state.beats)
    if run.average:
        run.average.load(state.average)
    set_random_states(run.generator, state.random)
    return list(state.curve)


def _state(run: _Run, curve: list[EpochScore]) -> TrainingState:
    return TrainingState(
        model=copied(tensors_of(run.model)),
        average=copied(run.average.state()) if run.average else {},
        beats=copied(run.beats.state_dict()),
        random=random_states(run.generator),
        curve=tuple(curve),
    )


def _scored_epoch(run: _Run, epoch: int, validation: Split, *, flushed: bool) -> EpochScore:
    """Train for one epoch, in place, to the last update of what is left in windows if `flushed`; return its score."""
    began, updates, skipped = perf_counter(), run.beats.updates, run.beats.skipped
    run.beats.scores()  # what happened before has been scored
    losses = _train_epoch(run, epoch)
    if flushed:
        _flush(run)
    return EpochScore(
        epoch=epoch,
        train_loss=float(losses.mean()),
        accuracy=accuracy(run.result, validation, run.numerics, run.pace),
        seconds=perf_counter() - began,
        micro_batches=len(losses),
        updates=run.beats.updates - updates,
        skipped=run.beats.skipped - skipped,
        regions=_regions(run),
    )


def _finished(run: _Run, score: EpochScore, validation: Split) -> EpochScore:
    """Update the weights with what is left in windows, in place; return the last epoch's score as it is then."""
    if not run.beats.waiting:
        return score
    began, updates = perf_counter(), run.beats.updates
    _flush(run)
    return replace(
        score,
        accuracy=accuracy(run.result, validation, run.numerics, run.pace),
        updates=score.updates + run.beats.updates - updates,
        regions=_regions(run),
        seconds=score.seconds + perf_counter() - began,
    )


def _regions(run: _Run) -> tuple[RegionScore, ...]:
    return () if run.plan.accumulation.plain else run.beats.scores_so_far()


def _train_epoch(run: _Run, epoch: int) -> Tensor:
    """Train for one epoch, in place; return the losses of its micro-batches, on the CPU."""
    run.model.train()
    batches = _batches(len(run.train), run.plan.batch_size, run.generator)
    losses: list[Tensor] = []
    for step, (images, labels) in enumerate(_dealt(run.train, batches), start=(epoch - 1) * len(batches)):
        with run.pace():
            run.set_pace(step, len(batches))
            losses.append(_micro_step(run, images, labels))
            run.threads.look()
        if run.beats.skips_in_a_row and not _may_go_on(run, losses[-1]):
            break
    found = torch.stack(losses).cpu()
    _refuse_divergence(run, epoch, found, len(batches))
    return found


def _micro_step(run: _Run, inputs: Tensor, labels: Tensor) -> Tensor:
    """Train on one micro-batch; return its loss."""
    images = augment(inputs, run.plan.augmentation, run.generator)
    updates = run.beats.updates
    loss = run.beats.step(run.numerics.logits(run.model, images), labels, loss=run.objective(images))
    _average(run, updates)
    return loss


def _flush(run: _Run) -> None:
    """Update the weights with what is left in windows at the end of training."""
    updates = run.beats.updates
    run.beats.flush()
    _average(run, updates)


def _average(run: _Run, updates: int) -> None:
    """Take the weights into the average if there were updates since this many."""
    if run.average and run.beats.updates > updates:
        run.average.update()


def _may_go_on(run: _Run, loss: Tensor) -> bool:
    """Tell whether the loss of a micro-batch that was skipped is finite; too many skips raise DivergedError."""
    if run.beats.skips_in_a_row >= _MOST_SKIPS:
        rule = f"the gradients of {_MOST_SKIPS} micro-batches in a row are not finite numbers"
        raise DivergedError(f"{rule}; a smaller training.lr or training.clip may help")
    return bool(loss.isfinite())


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Return the number of micro-batches into which `count` inputs are dealt."""
    whole, rest = divmod(count, batch_size)
    joined = rest == 1 < batch_size and whole > 0
    return whole + (rest > 0) - joined


def _dealt(train: Split, batches: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the float inputs and the labels of each batch; several batches are gathered at once, which is faster."""
    batch_bytes = len(batches[0]) * train.inputs[0].numel() * torch.float32.itemsize
    count = max(1, _GATHERED_BYTES // batch_bytes)
    for start in range(0, len(batches), count):
        some = batches[start : start + count]
        order, sizes = torch.cat(some), [len(batch) for batch in some]
        inputs, labels = to_float(train.inputs.index_select(0, order)), train.labels.index_select(0, order)
        yield from zip(torch.split(inputs, sizes), torch.split(labels, sizes), strict=True)


def _batches(count: int, size: int, generator: Generator) -> list[Tensor]:
    """Deal all indices below `count` into batches of `size`, the rest of them into a smaller one.

    A rest of one joins the batch before it: batch normalization has no variance of one input.
    """
    batches = list(torch.split(torch.randperm(count, generator=generator, device=generator.device), size))
    if len(batches) > 1 and len(batches[-1]) == 1 < size:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _refuse_divergence(run: _Run, epoch: int, losses: Tensor, steps_per_epoch: int) -> None:
    diverged = losses.isfinite().logical_not().nonzero()
    if len(diverged):
        batch = int(diverged[0])
        lr = run.lr((epoch - 1) * steps_per_epoch + batch, steps_per_epoch)
        where = f"epoch {epoch}, micro-batch {batch + 1} of {steps_per_epoch}, lr {lr:.3g}"
        raise DivergedError(
            f"the loss is {float(losses[batch])} in {where}; a smaller training.lr or a warm-up may help"
        )


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[Generator]:
    """Seed all that is random within, dropout too, and put the caller's random state back after."""
    accelerators = range(torch.cuda.device_count()) if device.type == "cuda" else ()
    with torch.random.fork_rng(accelerators, device_type=device.type), cudnn.flags(enabled=True, deterministic=True):
        if device.type == "cpu":
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed accelerators as well
        else:
            torch.manual_seed(seed)
        yield Generator(device).manual_seed(seed)


def _on(split: Split, device: torch.device) -> Split:
    return Split(inputs=split.inputs.to(device), labels=split.labels.to(device))


def _at_home(trained: nn.Module, model: nn.Module) -> nn.Module:
    """Return the trained copy of `model` arranged as it was, in torch's own layout, on the CPU."""
    arrange_as(trained, model)
    trained.zero_grad()
    return trained.to("cpu").to(memory_format=torch.contiguous_format).eval()
