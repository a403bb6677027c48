"""Learned quantization: gradients as LSQ defines them, and frozen grids that compute what was trained."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.optim import SGD, Adam, Optimizer

from beats_search import plugins
from beats_search.compression._conversion import freeze, learn_grids, quantize
from beats_search.compression._mixed import WIDTHS, allocate, integer_layers, mixed_bits
from beats_search.compression.quantization import Quantization
from beats_search.records.part import Part
from beats_search.tensors.data import Split
from beats_search.tensors.fake_quant import ActivationQuantizer, largest_step
from beats_search.tensors.learned_quant import LearnedGrid, LearnedLayer
from beats_search.tensors.network import with_preprocess
from beats_search.tensors.seams import Bench, Distillation

Settled = Callable[[nn.Module, Tensor], nn.Module]
BITS = (8, 6, 4, 3, 2)


@pytest.fixture
def model(bench: Bench, settled: Settled) -> nn.Module:
    """Return a small residual network whose norms have seen data and have factors of both signs."""
    torch.manual_seed(0)
    network = plugins.make("models", Part(name="resnet", settings=(("width", 8),))).build((1, 8, 8), 10)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.weight, 1.0, 0.6)
    return settled(with_preprocess(bench.data.preprocess, network), bench.data.train.inputs)


@given(
    values=st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=20),
    scale=st.floats(0.0078125, 0.03125, width=32),
    zero_point=st.integers(0, 255),
)
def test_a_grid_begins_as_observed(values: list[float], scale: float, zero_point: int) -> None:
    """Before any training a learned grid rounds as the fixed one does."""
    grid, inputs = ActivationQuantizer(scale, zero_point), torch.tensor(values)
    torch.testing.assert_close(LearnedGrid(grid)(inputs), grid(inputs), rtol=0, atol=scale * 1.001)
    assert float(LearnedGrid(grid).frozen().scale) == float(grid.scale)


@given(shift=st.floats(-1e6, 1e6, width=32))
def test_no_rate_takes_a_step_farther_than_twofold(shift: float) -> None:
    """Wherever an optimizer puts a shift, the step is half to twice its first value, to the side of its sign."""
    grid = LearnedGrid(ActivationQuantizer(0.5, 2))
    layer = LearnedLayer(nn.Linear(3, 2), None, bits=4, scale=torch.tensor([0.5, 0.25]))
    with torch.no_grad():
        grid.shift.fill_(shift)
        layer.shift.fill_(shift)
        factors = torch.cat([grid.scale.reshape(1) / 0.5, layer.scale / torch.tensor([0.5, 0.25])])
    for factor in factors.tolist():
        assert 0.499999 <= factor <= 2.000001
        assert (factor - 1) * shift >= 0


def test_gradients_are_those_of_lsq() -> None:
    """Within the grid gradients pass; a step hears the rounding error there, and the end of the grid beyond it."""
    inputs = torch.tensor([[-3.0, 0.26, 0.9, 400.0]], requires_grad=True)
    grid = LearnedGrid(ActivationQuantizer(0.5, 2))
    grid(inputs).sum().backward()
    assert inputs.grad is not None
    assert grid.shift.grad is not None
    assert inputs.grad.tolist() == [[0.0, 1.0, 1.0, 0.0]]
    errors = -2.0 + (1 - 0.52) + (2 - 1.8) + 253.0  # in steps
    share = 1 / math.sqrt(4 * 255)  # of the gradient by the step; a step of 0.5 is half of a factor's
    assert float(grid.shift.grad) == pytest.approx(errors * share / 0.5, rel=1e-5)


@pytest.mark.parametrize("bits", BITS)
def test_learned_layers_begin_where_rounding_ends(model: nn.Module, bench: Bench, bits: int) -> None:
    """Untrained, learned grids compute what quantization after training does, up to where norms are folded."""
    images = bench.data.train.inputs
    with torch.inference_mode():
        learned, rounded = learn_grids(model, images, bits)(images), quantize(model, images, bits)(images)
        plain = model(images)
    assert (learned - plain).abs().mean() <= 1.2 * (rounded - plain).abs().mean() + 0.02 * plain.std()


@pytest.mark.parametrize("bits", BITS)
def test_freezing_changes_nothing(model: nn.Module, bench: Bench, bits: int) -> None:
    """Fixed grids decide as the learned ones did, with norms of negative factors folded into the integers."""
    images = bench.data.train.inputs
    learned = learn_grids(model, images, bits)
    before = copy.deepcopy(learned.state_dict())
    fixed = freeze(learned)
    with torch.inference_mode():
        expected, got = learned(images), fixed(images)
    assert (got - expected).abs().max() < 0.05 * expected.std()
    assert all(torch.equal(value, before[name]) for name, value in learned.state_dict().items())
    assert not any(isinstance(module, LearnedGrid | LearnedLayer | nn.BatchNorm2d) for module in fixed.modules())


@pytest.mark.parametrize("bits", BITS)
def test_integers_fit_their_bits(model: nn.Module, bench: Bench, bits: int) -> None:
    """Only the first and the last layer have integers of 8 bits; grids are symmetric."""
    images = bench.data.train.inputs
    learned = freeze(learn_grids(model, images, bits))
    assert isinstance(learned, fx.GraphModule)
    for network in (quantize(model, images, bits), learned):
        first, *middle, last = [int(layer.steps.abs().max()) for layer in integer_layers(network)]
        assert max(middle) <= largest_step(bits)
        assert largest_step(bits) < min(first, last) <= 127 or bits == 8


@pytest.mark.slow
@pytest.mark.parametrize("make", [partial(SGD, lr=0.05, momentum=0.9), partial(Adam, lr=3e-3)], ids=["sgd", "adam"])
def test_training_on_the_grid_repairs_two_bits(make: Callable[..., Optimizer], model: nn.Module, bench: Bench) -> None:
    """With grids and weights trained together, three values a weight lose little; without training, much."""
    images, labels = bench.data.train.inputs, bench.data.train.labels

    def train(network: nn.Module, epochs: int, /, *, distillation: Distillation | None = None) -> nn.Module:
        assert distillation is None
        trained = copy.deepcopy(network).train()
        optimizer = make(trained.parameters())
        for _ in range(4 * epochs):
            for batch in torch.split(torch.arange(len(images)), 64):
                optimizer.zero_grad()
                functional.cross_entropy(trained(images[batch]), labels[batch]).backward()  # type: ignore[no-untyped-call]  # torch's
                optimizer.step()
        return trained.eval()

    dense = train(model, 3)
    rounded = Quantization(bits=2).apply(dense, bench)
    learned = Quantization(bits=2, mode="qat", recovery_epochs=2).apply(dense, replace(bench, fine_tune=train))
    with torch.inference_mode():
        losses = [float(functional.cross_entropy(each(images), labels)) for each in (dense, rounded, learned)]
    assert losses[2] < 0.5 * losses[1]
    assert losses[2] < losses[0] + 0.1


@given(
    sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=6),
    losses=st.lists(st.lists(st.floats(0, 5), min_size=5, max_size=5), min_size=6, max_size=6),
    average=st.floats(2, 8),
)
def test_allocation_keeps_to_the_average(sizes: list[int], losses: list[list[float]], average: float) -> None:
    """A weight has at most the average number of bits, and no layer could take one width more within it for nothing."""
    tables = [dict(zip(WIDTHS, row, strict=True)) for row in losses[: len(sizes)]]
    bits = allocate(sizes, tables, average)
    spent = sum(size * width for size, width in zip(sizes, bits, strict=True))
    assert spent <= average * sum(sizes) + 1e-6
    assert set(bits) <= set(WIDTHS)


def test_allocation_spares_the_layer_that_minds() -> None:
    """Of two layers of one size the one whose loss does not rise is narrowed first."""
    calm, touchy = dict.fromkeys(WIDTHS, 1.0), {8: 1.0, 6: 2.0, 4: 4.0, 3: 6.0, 2: 9.0}
    assert allocate([100, 100], [touchy, calm], 5.0) == (8, 2)


def test_mixed_bits_are_measured_and_leave_no_trace(model: nn.Module, bench: Bench) -> None:
    """Layers get different widths within the average, and the model that was tried on is as it was."""
    graph = quantize(model, bench.data.train.inputs)
    before = copy.deepcopy(graph.state_dict())
    bits = mixed_bits(graph, bench.data.validation, 4.0)
    sizes = [layer.steps.numel() for layer in integer_layers(graph)]
    assert len(set(bits)) > 1
    assert sum(size * width for size, width in zip(sizes, bits, strict=True)) <= 4.0 * sum(sizes)
    assert all(torch.equal(value, before[name]) for name, value in graph.state_dict().items())


def test_mixed_bits_are_measured_on_all_classes(model: nn.Module, bench: Bench) -> None:
    """Of validation inputs that are sorted by class more than the first classes are looked at."""
    labels = torch.arange(10).repeat_interleave(300)
    brightness = (labels / 10).reshape(-1, 1, 1, 1)
    graph, seen = quantize(model, bench.data.train.inputs), list[Tensor]()
    graph.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, 0, 0, 0]))
    mixed_bits(graph, Split(inputs=brightness.expand(-1, 1, 8, 8), labels=labels), 4.0)
    assert all(len(set(images.tolist())) == 10 for images in seen)


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"mode": "ptq", "recovery_epochs": 1}, "takes no recovery_epochs"),
        ({"mode": "qat"}, "needs recovery_epochs of at least 1"),
        ({"bits": "mixed", "average_bits": 1.5}, "between 2 and 8"),
        ({"calibration_images": 0}, "at least 1"),
    ],
)
def test_settings_that_contradict_are_refused(settings: dict[str, object], rule: str) -> None:
    """The message says which setting and what is allowed."""
    with pytest.raises(ValueError, match=rule):
        Quantization(**settings)  # type: ignore[arg-type]  # from a dict
