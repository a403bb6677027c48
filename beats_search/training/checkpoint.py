"""Checkpoint: a training that stands after an epoch in, the same training, ready to go on as if it never stood, out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, cast, final

import torch
from torch import Generator, Tensor, nn

from beats_search.records.outcome import EpochScore
from beats_search.records.plain import Plain, from_plain, to_plain

Tensors: TypeAlias = Mapping[str, Tensor]
"""Parameters and buffers by name."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """All that a training needs to go on after an epoch. The tensors are copies, on the CPU.

    `model` is what is being trained and `average` the average of its weights, empty without one;
    `beats` holds windows, counters, heads, and the optimizer's state; `random` the states of all
    generators. Windows may be half full: no update was made only because training might end here.
    """

    model: Tensors
    average: Tensors
    beats: Mapping[str, Any]
    random: Tensors
    curve: tuple[EpochScore, ...]

    @property
    def epoch(self) -> int:
        """The epoch after which it stands, counted from 1."""
        return len(self.curve)


class Checkpoint(Protocol):
    """Where a training begins, and what becomes of its states."""

    def latest(self) -> TrainingState | None:
        """Return the state to go on from, of the same training, before or after its last epoch; None to begin."""

    def keep(self, state: TrainingState) -> None:
        """Take the state after an epoch; called after each that was trained."""


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return all parameters and buffers by name, those too that a state dict leaves out; tied ones once."""
    return dict(_tensors(model))


def fits(model: nn.Module, tensors: Tensors) -> bool:
    """Tell whether tensors are, by names, shapes and types, those of a model."""
    return _forms(tensors_of(model)) == _forms(tensors)


def is_whole(model: nn.Module) -> bool:
    """Tell whether a model's tensors are all that it learns, as far as it says, and can be written to a file."""
    told = all(type(module).get_extra_state is nn.Module.get_extra_state for module in model.modules())
    plain = all(type(each) in {Tensor, nn.Parameter} and each.layout == torch.strided for _, each in _tensors(model))
    return told and plain


def restore(model: nn.Module, tensors: Tensors) -> None:
    """Give a model the values of tensors, in place; ValueError when they are not its own."""
    if not fits(model, tensors):
        own, given = sorted(_forms(tensors_of(model))), sorted(_forms(tensors))
        raise ValueError(f"a state needs the names, shapes and types of the model's tensors, {own}, got {given}")
    with torch.no_grad():
        for name, tensor in _tensors(model):
            tensor.copy_(tensors[name])


def random_states(generator: Generator) -> dict[str, Tensor]:
    """Return the states of a generator, and of torch's own on the CPU and on the generator's device."""
    device = generator.device
    found = {"own": generator.get_state(), "cpu": torch.get_rng_state()}
    if device.type != "cpu":
        found["device"] = torch.get_device_module(device).get_rng_state(*_named(device))
    return found


def set_random_states(generator: Generator, states: Tensors) -> None:
    """Put back what `random_states` found."""
    device = generator.device
    generator.set_state(states["own"])
    torch.set_rng_state(states["cpu"])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states["device"], *_named(device))


def copied(value: Any) -> Any:  # noqa: ANN401 - of the same kind as the argument, whatever that is
    """Return a copy of nested mappings and sequences, every tensor in it a compact one of its own on the CPU."""
    match value:
        case Tensor():
            return value.detach().to("cpu", copy=True)
        case Mapping():
            return {key: copied(item) for key, item in value.items()}
        case tuple() | list():
            return type(value)(copied(item) for item in value)
    return value


def to_saved(state: TrainingState) -> dict[str, Any]:
    """Turn a state into what `torch.save` writes and `torch.load` reads with `weights_only`."""
    return {
        "model": dict(state.model),
        "average": dict(state.average),
        "beats": dict(state.beats),
        "random": dict(state.random),
        "curve": [to_plain(score) for score in state.curve],
    }


def from_saved(saved: Mapping[str, Any]) -> TrainingState:
    """Read back what `to_saved` gave."""
    scores = cast("list[Plain]", saved["curve"])
    return TrainingState(
        model=saved["model"],
        average=saved["average"],
        beats=saved["beats"],
        random=saved["random"],
        curve=tuple(from_plain(EpochScore, score) for score in scores),
    )


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _forms(tensors: Tensors) -> set[tuple[str, tuple[int, ...], str]]:
    return {(name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in tensors.items()}


def _named(device: torch.device) -> tuple[torch.device, ...]:
    """Return the device as an argument, where there may be more than one of its kind."""
    return () if device.type == "mps" else (device,)
