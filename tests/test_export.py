"""Export: a graph filled with a model's weights against the exporter's own file of that model."""

import copy
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from export_toys import of_its_own
from onnx_ir import serde
from torch import Tensor, nn

from beats_search import plugins
from beats_search.compression.quantization import Quantization
from beats_search.records.column import Column
from beats_search.records.errors import ExportError
from beats_search.records.part import Part
from beats_search.runtimes import _onnx_export as exporter
from beats_search.runtimes._onnx_export import export_onnx
from beats_search.runtimes._templates import template_of
from beats_search.tensors.network import with_preprocess
from beats_search.tensors.seams import Bench
from beats_search.tensors.structure import weights_of
from beats_search.tensors.table import table_preprocess

SMALL = {
    "mlp": Part(name="mlp", settings=(("width", 12), ("depth", 2))),
    "cnn": Part(name="cnn", settings=(("width", 4), ("dense", 8), ("beats_layers", 2))),
    "resnet": Part(name="resnet", settings=(("width", 4),)),
}
COLUMNS = (
    Column(name="size", kind="number"),
    Column(name="colour", kind="category", categories=("blue", "red")),
    Column(name="age", kind="number"),
)


pytestmark = pytest.mark.usefixtures("exports")


def network(part: Part, seed: int, shape: tuple[int, ...]) -> nn.Module:
    """Return an untrained network of ten classes."""
    torch.manual_seed(seed)
    built: nn.Module = plugins.make("models", part).build(shape, 10)
    return built.eval()


def small(family: str, seed: int, bench: Bench) -> nn.Module:
    """Return an untrained model of 8×8 images, its standardization before it."""
    return with_preprocess(bench.data.preprocess, network(SMALL[family], seed, (1, 8, 8)))


def table(seed: int) -> nn.Module:
    """Return a model of raw rows of a table."""
    rows = torch.rand(40, 3, generator=torch.Generator().manual_seed(seed))
    return with_preprocess(
        table_preprocess(rows, COLUMNS, standardize=True, squares=True), network(SMALL["mlp"], seed, (6,))
    )


def uneven(model: nn.Module, seed: int) -> nn.Module:
    """Return the model with norms that are not those of an untrained one."""
    random = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert tensor is not None
                tensor.data = 0.5 + torch.rand(tensor.shape, generator=random)
    return model


def level(model: nn.Module) -> nn.Module:
    """Return a copy whose tensors equal one another as far as they can: no biases, one scale, a dead channel."""
    levelled = copy.deepcopy(model)
    for name, weight in weights_of(levelled).items():
        if weight.dim() > 1 and "preprocess" not in name:
            weight.data[0] = 0
        elif "bias" in name or "mean" in name or "zero_point" in name:
            weight.data.zero_()
        elif weight.is_floating_point():
            weight.data.fill_(0.5)
    return levelled


def exporters_own(raw: onnx.ModelProto, model: nn.Module, path: Path) -> Path:
    """Write what the exporter makes of a program of the same structure when it knows the weights."""
    program = torch.onnx.ONNXProgram(serde.deserialize_model(raw), None)
    weights = weights_of(exporter._prepared(model))
    program.apply_weights({name: weights[name] for name in program.model.graph.initializers if name in weights})
    program.optimize()
    program.save(path)
    return path


def logits(path: Path, inputs: Tensor) -> np.ndarray:
    """Return what a plain session on a file computes."""
    found: np.ndarray = onnxruntime.InferenceSession(path).run(None, {"input": inputs.numpy()})[0]
    return found


def operators(path: Path) -> Counter[str]:
    """Count the nodes of a file by what they do."""
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def check_against_exporter(first: nn.Module, second: nn.Module, inputs: Tensor, folder: Path) -> None:
    """Fill the first model's template with the second and with equal tensors; compare with the exporter's files."""
    prepared = exporter._prepared(first)
    program = exporter._program(prepared, inputs[:1])
    raw = serde.serialize_model(program.model)
    template = template_of(program, weights_of(prepared))
    assert template.reusable
    for model in (second, level(second)):
        filled = folder / "filled.onnx"
        filled.write_bytes(template.filled(weights_of(exporter._prepared(model))).SerializeToString())
        expected = exporters_own(raw, model, folder / "expected.onnx")
        assert np.array_equal(logits(filled, inputs), logits(expected, inputs))
        if model is second:
            assert operators(filled) == operators(expected)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "bits"), [("mlp", 8), ("cnn", 32), ("cnn", 8), ("resnet", 32), ("resnet", 8)])
def test_other_weights_give_the_exporter_s_own_file(family: str, bits: int, bench: Bench, tmp_path: Path) -> None:
    """A graph filled with another model's weights computes, to the bit, what the exporter's file of it does."""
    quantization = Quantization(bits=bits)  # type: ignore[arg-type]  # one of those that are allowed
    first, second = (quantization.apply(uneven(small(family, seed, bench), seed), bench) for seed in (0, 1))
    check_against_exporter(first, second, bench.data.train.inputs, tmp_path)


@pytest.mark.slow
def test_a_network_of_torchvision_is_filled(tmp_path: Path) -> None:
    """The same holds for a network that others wrote."""
    part = Part(name="torchvision", settings=(("network", "mobilenet_v2"),))
    first, second = (uneven(network(part, seed, (3, 32, 32)), seed) for seed in (0, 1))
    check_against_exporter(first, second, torch.rand(4, 3, 32, 32), tmp_path)


@pytest.mark.slow
def test_a_table_s_preprocessing_is_filled(tmp_path: Path) -> None:
    """The same holds for statistics of columns, whose places and codes are part of the structure."""
    rows = torch.tensor([[0.3, 1.0, 7.0], [float("nan"), -1.0, 0.5], [2.0, 0.0, float("nan")]])
    check_against_exporter(table(0), table(1), rows, tmp_path)


def tiny(seed: int) -> nn.Module:
    """Return a network of each kind of layer, with norms after two of them."""
    torch.manual_seed(seed)
    layers = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 6), nn.BatchNorm1d(6))
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(6, 10)).eval()


EXAMPLE = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
@pytest.mark.parametrize("bits", [32, 8])
def test_one_structure_is_exported_once(bits: int, bench: Bench, exports: list[nn.Module], tmp_path: Path) -> None:
    """The file of the second model is, to the byte, that of an export of its own, also after an untrained one."""
    quantization = Quantization(bits=bits)  # type: ignore[arg-type]  # one of those that are allowed
    trained = uneven(tiny(1), 1).to(memory_format=torch.channels_last)
    first, second = (quantization.apply(model, bench) for model in (tiny(0), trained))
    export_onnx(first, EXAMPLE, tmp_path / "first.onnx")
    export_onnx(second, EXAMPLE, tmp_path / "second.onnx")
    assert len(exports) == 1
    assert (tmp_path / "second.onnx").read_bytes() == of_its_own(second, EXAMPLE)


def test_an_export_changes_nothing_in_the_model() -> None:
    """Weights keep their values and their order in memory, and the model its mode; the exporter sees one order."""
    model = tiny(0).to(memory_format=torch.channels_last).train()
    before = {name: (tensor.clone(), tensor.stride()) for name, tensor in model.state_dict().items()}
    prepared = exporter._prepared(model)
    assert model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name][0])
        assert tensor.stride() == before[name][1]
        assert prepared.state_dict()[name].stride() == torch.empty(tensor.shape).stride()


class Scaled(nn.Module):
    """Multiplies by what a function gives, which nobody can see into."""

    def __init__(self, scale: Callable[[], float]) -> None:
        super().__init__()
        self.scale = scale
        self.layer = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        scaled: Tensor = self.layer(images.flatten(1)) * self.scale()
        return scaled


def giving(number: float) -> Callable[[], float]:
    """Return a function that holds a number."""
    return lambda: number


@pytest.mark.slow
def test_what_cannot_be_compared_is_exported_each_time(exports: list[nn.Module], tmp_path: Path) -> None:
    """Models that differ in what a function holds get files of their own."""
    path = tmp_path / "model.onnx"
    for number in (2.0, 3.0):
        model = Scaled(giving(number)).eval()
        export_onnx(model, EXAMPLE, path)
        with torch.inference_mode():
            assert np.allclose(logits(path, EXAMPLE), model(EXAMPLE).numpy(), atol=1e-5)
    assert len(exports) == 2


class Shifted(nn.Module):
    """Multiplies by a constant and adds a buffer."""

    shift: Tensor

    def __init__(self, shift: list[float]) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor(shift))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :3] * torch.tensor([1.0, 2.0, 4.0]) + self.shift


@pytest.mark.slow
def test_a_constant_that_may_be_a_weight_is_not_reused(exports: list[nn.Module], tmp_path: Path) -> None:
    """Where a weight equals a constant of the graph, the next model is exported again; where none does, it is not."""
    path = tmp_path / "model.onnx"
    for shift, count in (([1.0, 2.0, 4.0], 1), ([0.0, 1.0, 2.0], 2), ([5.0, 6.0, 7.0], 2)):
        model = Shifted(shift).eval()
        export_onnx(model, EXAMPLE, path)
        assert len(exports) == count
        assert np.allclose(logits(path, EXAMPLE), model(EXAMPLE).numpy())


class Fickle(nn.Module):
    """A network whose course depends on what it computes."""

    def __init__(self) -> None:
        """Have one layer."""
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Turn dark images over."""
        flat = images.flatten(1)
        logits: Tensor = self.linear(flat) if flat.sum() > 0 else self.linear(-flat)
        return logits


def test_a_network_without_a_graph_is_told_in_one_line(tmp_path: Path) -> None:
    """The message has the exporter's own reason, not the report that it writes around it."""
    with pytest.raises(
        ExportError, match=r"^torch cannot export this network: \w+: Could not guard .*; a network has"
    ) as told:
        export_onnx(Fickle().eval(), torch.rand(1, 1, 8, 8), tmp_path / "model.onnx")
    assert "\n" not in str(told.value)
