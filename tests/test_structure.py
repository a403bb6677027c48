"""Structure: what two models must have in common to share a graph, and what they need not."""

import copy
import functools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from beats_search import plugins
from beats_search.records.part import Part
from beats_search.records.plan import TrainingPlan
from beats_search.tensors.network import with_preprocess
from beats_search.tensors.seams import Bench
from beats_search.tensors.structure import Known, structure_of, weights_of
from beats_search.training.fit import fit


class Relu(nn.Module):
    """A layer and a function."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, values: Tensor) -> Tensor:
        return F.relu(self.layer(values))


class Gelu(nn.Module):
    """The same layer and another function."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, values: Tensor) -> Tensor:
        return F.gelu(self.layer(values))


def local_class(function: Callable[[Tensor], Tensor]) -> nn.Module:
    """Return a module of a class that has the same name each time."""

    class Local(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return function(values)

    return Local()


class Holder(nn.Module):
    """Holds anything."""

    def __init__(self, held: object) -> None:
        super().__init__()
        self.held = held


class Pointer(nn.Module):
    """Picks columns."""

    def __init__(self, at: list[int], dtype: torch.dtype = torch.int64) -> None:
        super().__init__()
        self.register_buffer("at", torch.tensor(at, dtype=dtype))


@dataclass
class Settings:
    """What a module may be configured by."""

    rate: float


def two_layers(*, tied: bool) -> nn.Module:
    """Return two layers of one shape, which may share their weights."""
    layers = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    if tied:
        layers[1].weight = layers[0].weight
    return layers


def traced(function: Callable[[Tensor], Tensor]) -> nn.Module:
    """Return a graph that calls a function of tensors."""
    graph = fx.Graph()
    graph.output(graph.call_function(function, (graph.placeholder("values"),)))
    return fx.GraphModule(nn.Module(), graph)


def double(values: Tensor) -> Tensor:
    """Return values twice as large."""
    return 2 * values


DIFFERENT = {
    "stride": (nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 3, stride=2)),
    "padding": (nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 3, padding=1)),
    "padding by name": (nn.Conv2d(1, 2, 3, padding="same"), nn.Conv2d(1, 2, 3, padding="valid")),
    "groups": (nn.Conv2d(2, 2, 1, groups=2), nn.Conv2d(1, 2, 1)),
    "bias": (nn.Linear(4, 4), nn.Linear(4, 4, bias=False)),
    "width": (nn.Linear(4, 4), nn.Linear(4, 5)),
    "type": (nn.Linear(4, 4), nn.Linear(4, 4).double()),
    "eps": (nn.BatchNorm1d(4), nn.BatchNorm1d(4, eps=1e-3)),
    "activation": (nn.Sequential(nn.ReLU()), nn.Sequential(nn.GELU())),
    "approximation": (nn.GELU(), nn.GELU(approximate="tanh")),
    "order": (nn.Sequential(nn.ReLU(), nn.Tanh()), nn.Sequential(nn.Tanh(), nn.ReLU())),
    "forward": (Relu(), Gelu()),
    "classes of one name": (local_class(torch.relu), local_class(torch.tanh)),
    "ties": (two_layers(tied=True), two_layers(tied=False)),
    "a number": (Holder(1), Holder(2)),
    "a number's type": (Holder(1), Holder(1.0)),
    "a truth value": (Holder(held=1), Holder(held=True)),
    "a zero's sign": (Holder(0.0), Holder(-0.0)),
    "a function": (Holder(F.relu), Holder(F.gelu)),
    "a bound argument": (Holder(functools.partial(F.elu, alpha=1.0)), Holder(functools.partial(F.elu, alpha=2.0))),
    "settings": (Holder(Settings(0.1)), Holder(Settings(0.2))),
    "nested values": (Holder({"a": [1, (2,)]}), Holder({"a": [1, (3,)]})),
    "a plain tensor": (Holder(torch.tensor([1.0])), Holder(torch.tensor([2.0]))),
    "where a pointer points": (Pointer([0, 1]), Pointer([1, 0])),
    "a graph's function": (traced(torch.relu), traced(torch.tanh)),
    "a graph's own function": (traced(double), traced(torch.neg)),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_models_that_compute_something_else_have_another_structure(what: str) -> None:
    """Models that look alike but differ in one thing never share what is kept by structure."""
    first, second = (structure_of(model) for model in DIFFERENT[what])
    assert first is not None
    assert second is not None
    assert first != second


@pytest.mark.parametrize("what", DIFFERENT)
def test_a_structure_is_found_again(what: str) -> None:
    """A copy of a model with other weights has an equal structure, of equal hash."""
    model = DIFFERENT[what][0]
    other = copy.deepcopy(model)
    for weight in weights_of(other).values():
        weight.data = torch.rand(weight.shape, dtype=weight.dtype)
    assert structure_of(other) == structure_of(model)
    assert hash(structure_of(other)) == hash(structure_of(model))


def hooked(model: nn.Module, *, before: bool) -> nn.Module:
    """Return a model with a function that is called before or after it."""
    if before:
        model.register_forward_pre_hook(lambda *_: None)
    else:
        model.register_forward_hook(lambda *_: None)
    return model


def closing_over(number: float) -> Callable[[Tensor], Tensor]:
    """Return a function that holds a number."""
    return lambda values: values * number


def replaced(model: nn.Module) -> nn.Module:
    """Return a model whose forward is that of another one."""
    model.forward = nn.ReLU().forward
    return model


@pytest.mark.parametrize(
    "model",
    [
        hooked(nn.ReLU(), before=True),
        hooked(nn.ReLU(), before=False),
        replaced(nn.GELU()),
        Holder(closing_over(2.0)),
        Holder([nn.Linear(2, 2)]),
        Holder(object()),
        Holder(torch.Generator()),
        nn.Sequential(nn.ReLU(), Holder({"a": (object(),)})),
        traced(closing_over(2.0)),
    ],
)
def test_what_cannot_be_compared_has_no_structure(model: nn.Module) -> None:
    """Hooks, objects, functions that hold something: anywhere in a model, they keep it from being shared."""
    assert structure_of(model) is None


FAMILIES = {
    "mlp": Part(name="mlp", settings=(("width", 16), ("dropout", 0.1))),
    "cnn": Part(name="cnn", settings=(("width", 16), ("beats_layers", 1))),
    "resnet": Part(name="resnet", settings=(("width", 16),)),
}


def model_of(family: str, bench: Bench) -> nn.Module:
    """Return an untrained model."""
    built: nn.Module = plugins.make("models", FAMILIES[family]).build((1, 8, 8), 10)
    return with_preprocess(bench.data.preprocess, built).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_training_keeps_the_structure(family: str, bench: Bench) -> None:
    """A model has the structure that it had before it was trained, the counters of its norms notwithstanding."""
    model = model_of(family, bench)
    trained = fit(model, bench.data, TrainingPlan(epochs=1), seed=0).model
    assert structure_of(trained) is not None
    assert structure_of(trained) == structure_of(model)


@pytest.mark.parametrize(
    "part",
    [
        Part(name="quantization", settings=(("bits", 8),)),
        Part(name="channel_pruning", settings=(("ratio", 0.5), ("round_to", 8))),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_compression_gives_one_structure_for_all_weights(family: str, part: Part, bench: Bench) -> None:
    """Models that differ in their weights alone are compressed to models that do too."""
    technique = plugins.make("compression", part)
    first, second = (structure_of(technique.apply(model_of(family, bench), bench)) for _ in range(2))
    assert first is not None
    assert first == second


def test_pointers_are_no_weights() -> None:
    """Whole numbers of 64 bits and truth values choose among other tensors, so they are part of the structure."""
    model = nn.Sequential(Pointer([0, 1]), nn.Linear(2, 2), nn.BatchNorm1d(2))
    names = ("1.weight", "1.bias", "2.weight", "2.bias", "2.running_mean", "2.running_var")
    assert tuple(weights_of(model)) == names


@given(keys=st.lists(st.integers(0, 5)), most=st.integers(1, 4))
def test_the_least_recently_used_is_forgotten(keys: list[int], most: int) -> None:
    """Whatever is asked for, the last keys that were used are known, and no others are."""
    known, finds = Known[int](most), []

    def find(key: int) -> int:
        finds.append(key)
        return -key

    used: OrderedDict[int, None] = OrderedDict()
    for key in keys:
        before = len(finds)
        assert known.found(key, functools.partial(find, key)) == -key
        assert (len(finds) == before) == (key in list(used)[-most:])
        used.pop(key, None)
        used[key] = None
    assert len(known) == min(most, len(used))


def test_nothing_is_kept_without_a_key_or_against_the_will() -> None:
    """What has no key, or is not to be kept, is found anew each time."""
    known = Known[int](4)
    numbers = iter(range(4))
    assert [known.found(None, lambda: next(numbers)) for _ in range(2)] == [0, 1]
    assert [known.found("a", lambda: next(numbers), keep=lambda _: False) for _ in range(2)] == [2, 3]
    assert not len(known)
