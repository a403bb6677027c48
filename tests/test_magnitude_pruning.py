"""Magnitude pruning: the smallest weights are zero, and stay zero while the rest is trained."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from beats_search import plugins
from beats_search.compression._mixed import integer_layers
from beats_search.compression.magnitude_pruning import MagnitudePruning
from beats_search.compression.quantization import Quantization
from beats_search.records.part import Part
from beats_search.records.plan import AccumulationPlan, TrainingPlan, TrialPlan
from beats_search.tensors.beats_layers import BeatsConv2d
from beats_search.tensors.network import with_preprocess
from beats_search.tensors.seams import Bench
from beats_search.trial.recipe import compress, recovery

SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)


def _model(bench: Bench) -> nn.Module:
    torch.manual_seed(0)
    part = Part(name="cnn", settings=(("width", 4), ("dense", 16), ("beats_layers", 1)))
    return with_preprocess(bench.data.preprocess, plugins.make("models", part).build((1, 8, 8), 10)).eval()


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: each.detach() for name, each in model.named_parameters() if each.ndim > 1}


def _zeros(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight == 0 for name, weight in _weights(model).items()}


def _parts(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sizes of the weights that were removed and of those that were kept."""
    return before[after == 0].abs(), before[after != 0].abs()


@SHARED
@given(ratio=st.floats(0, 0.999))
def test_a_share_of_the_smallest_weights_of_each_layer_is_zero(ratio: float, bench: Bench) -> None:
    """In each layer the ratio says how many are zero, none is larger than one that is kept, and those are as before."""
    model = _model(bench)
    pruned = _weights(MagnitudePruning(ratio=ratio).apply(model, bench))
    for name, before in _weights(model).items():
        removed, kept = _parts(before, pruned[name])
        assert len(removed) == pytest.approx(ratio * before.numel(), abs=1)
        assert not len(removed) or removed.max() <= kept.min()
        assert torch.equal(pruned[name][pruned[name] != 0], before[pruned[name] != 0])


@SHARED
@given(ratio=st.floats(0, 0.999))
def test_globally_the_smallest_weights_of_all_layers_are_zero(ratio: float, bench: Bench) -> None:
    """With global scope the ratio and the ranking hold for all layers together."""
    model = _model(bench)
    after = _weights(MagnitudePruning(ratio=ratio, scope="global").apply(model, bench))
    together = (torch.cat([each.flatten() for each in some.values()]) for some in (_weights(model), after))
    removed, kept = _parts(*together)
    assert len(removed) == pytest.approx(ratio * (len(removed) + len(kept)), abs=1)
    assert not len(removed) or removed.max() <= kept.min()


def test_global_scope_takes_from_layers_of_small_weights(bench: Bench) -> None:
    """A layer of small weights loses more than its share, which it does not per layer."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 10)).eval()
    model[1].get_parameter("weight").detach().mul_(1e-3)
    shares = {
        scope: _zeros(MagnitudePruning(ratio=0.5, scope=scope).apply(model, bench))["2.weight"].float().mean()
        for scope in ("per_layer", "global")
    }
    assert shares == {"per_layer": 0.5, "global": 0.0}


def _trained(bench: Bench, ema: float, method: AccumulationPlan) -> Bench:
    """Return a bench that trains for real."""
    training = TrainingPlan(epochs=1, batch_size=32, lr=0.1, ema=ema, accumulation=method)
    plan = TrialPlan(dataset=Part(name="digits"), model=Part(name="cnn"), training=training)
    return replace(bench, fine_tune=recovery(plan, bench.data))


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("method", [AccumulationPlan(), AccumulationPlan(window=3, trigger=1.3, local_error=0.4)])
def test_zeros_survive_recovery(ema: float, method: AccumulationPlan, bench: Bench) -> None:
    """Trained by momentum, weight decay, averages and the method, zeros are where they were, and all else moves."""
    model, technique = _model(bench), MagnitudePruning(ratio=0.7, recovery_epochs=2)
    untrained = technique.apply(model, bench)
    recovered = technique.apply(model, _trained(bench, ema, method))
    for name, zero in _zeros(untrained).items():
        assert torch.equal(_weights(recovered)[name] == 0, zero)
        assert not torch.equal(_weights(recovered)[name], _weights(untrained)[name])


def _plan(*compression: Part, ema: float = 0.0) -> TrialPlan:
    training = TrainingPlan(epochs=1, batch_size=32, lr=0.1, ema=ema)
    return TrialPlan(dataset=Part(name="digits"), model=Part(name="cnn"), training=training, compression=compression)


def _part(name: str, **settings: float | str) -> Part:
    return Part(name=name, settings=tuple(settings.items()))


@pytest.mark.parametrize("bits", [8, 3, "mixed"])
@pytest.mark.parametrize("mode", [{"mode": "ptq"}, {"mode": "qat", "recovery_epochs": 2}], ids=["ptq", "qat"])
def test_zeros_survive_quantization(mode: dict[str, str | int], bits: int | str, bench: Bench) -> None:
    """Rounded or learned in further training, a weight that was pruned is 0 in the integers, and not all are."""
    model, pruning = _model(bench), _part("magnitude_pruning", ratio=0.8)
    plan = _plan(pruning, _part("quantization", bits=bits, **mode), ema=0.9)
    quantized = compress(model, plan, bench.data, recovery(plan, bench.data))
    assert isinstance(quantized, fx.GraphModule)
    zeros = _zeros(MagnitudePruning(ratio=0.8).apply(model, bench))
    for zero, layer in zip(zeros.values(), integer_layers(quantized), strict=True):
        assert not layer.steps[zero].any()
        assert layer.steps[~zero].any()


@pytest.mark.parametrize("share", [{}, {"distillation": 0.5}], ids=["alone", "taught"])
def test_zeros_survive_channel_pruning(share: dict[str, float], bench: Bench) -> None:
    """A network that gets narrower after its weights were pruned has its zeros where they were before it recovered."""
    narrower = _part("channel_pruning", ratio=0.5, round_to=2, recovery_epochs=2, **share)
    model, plan = _model(bench), _plan(_part("magnitude_pruning", ratio=0.8), narrower)
    recovered = compress(model, plan, bench.data, recovery(plan, bench.data))
    for name, zero in _zeros(compress(model, plan, bench.data, bench.fine_tune)).items():
        assert 0 < zero.sum() < zero.numel()
        assert torch.equal(_zeros(recovered)[name], zero)


@pytest.mark.parametrize("before", [(), (_part("magnitude_pruning", ratio=0.0),)], ids=["nothing", "no pruning"])
def test_zeros_that_nobody_asked_for_are_trained(before: tuple[Part, ...], bench: Bench) -> None:
    """Without a pruning before it, a technique trains weights that happen to be 0 as any other."""
    model, plan = _model(bench), _plan(*before, _part("channel_pruning", ratio=0.5, round_to=2, recovery_epochs=1))
    model.get_parameter("network.fc2.weight").detach()[:, ::2] = 0
    recovered = compress(model, plan, bench.data, recovery(plan, bench.data))
    assert _weights(recovered)["network.fc2.weight"].all()


@pytest.mark.parametrize("epochs", [0, 1])
def test_the_result_is_an_ordinary_network(epochs: int, bench: Bench) -> None:
    """It has the layers and the names of the dense one in their order, no masks, and quantization takes it."""
    model = _model(bench)
    trained = _trained(bench, 0.0, AccumulationPlan())
    pruned = MagnitudePruning(ratio=0.5, recovery_epochs=epochs).apply(model, trained)
    assert [type(module) for module in pruned.modules()] == [type(module) for module in model.modules()]
    assert any(type(module) is BeatsConv2d for module in pruned.modules())
    assert [name for name, _ in pruned.named_parameters()] == [name for name, _ in model.named_parameters()]
    assert not any(parametrize.is_parametrized(module) for module in pruned.modules())
    assert not any(module.training for module in pruned.modules())
    assert Quantization(bits=8).apply(pruned, bench)(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_equal_plans_give_equal_weights_and_change_no_argument(bench: Bench) -> None:
    """Two prunings of one model give the same numbers, to the bit, and the model is as it was."""
    model = _model(bench).train()
    before, technique = copy.deepcopy(model), MagnitudePruning(ratio=0.5, recovery_epochs=1)
    one, other = (technique.apply(model, _trained(bench, 0.0, AccumulationPlan())) for _ in range(2))
    assert all(torch.equal(each, other.state_dict()[name]) for name, each in one.state_dict().items())
    assert all(torch.equal(each, before.state_dict()[name]) for name, each in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert [type(module) for module in model.modules()] == [type(module) for module in before.modules()]


def test_only_named_layers_get_zeros(bench: Bench) -> None:
    """With `layers` the others keep all their weights, and a pattern without a layer is an error that lists them."""
    model = _model(bench)
    zeros = _zeros(MagnitudePruning(ratio=0.5, layers=("fc*",)).apply(model, bench))
    assert {name for name, zero in zeros.items() if zero.any()} == {"network.fc1.weight", "network.fc2.weight"}
    with pytest.raises(ValueError, match=r"layers=\['fc9'\] matches no layer .* there are: conv1, .*, fc1, fc2"):
        MagnitudePruning(ratio=0.5, layers=("fc9",)).apply(model, bench)


@pytest.mark.parametrize("ratio", [0.0, 1e-6])
def test_nothing_to_remove_returns_the_model_untrained(ratio: float, bench: Bench) -> None:
    """Where no weight is to be zero, nothing is copied and nothing is trained."""

    def refuse(_model: nn.Module, *_: object, **__: object) -> nn.Module:
        raise AssertionError

    model, technique = _model(bench), MagnitudePruning(ratio=ratio, recovery_epochs=2)
    assert technique.apply(model, replace(bench, fine_tune=refuse)) is model


def test_users_are_told_that_latency_stays() -> None:
    """The line that `beats-search parts` shows promises no speed."""
    assert "latency does not gain" in plugins.summary("compression", "magnitude_pruning")


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"ratio": 1.0}, "at least 0 and below 1, got 1.0"),
        ({"ratio": -0.1}, "at least 0 and below 1, got -0.1"),
        ({"ratio": 0.5, "recovery_epochs": -1}, "recovery_epochs needs to be at least 0"),
        ({"ratio": 0.5, "layers": ()}, "at least one name or pattern"),
    ],
)
def test_nonsense_is_refused(wrong: dict[str, float], rule: str) -> None:
    """Settings check themselves."""
    with pytest.raises(ValueError, match=rule):
        MagnitudePruning(**wrong)  # type: ignore[arg-type]  # wrong on purpose
