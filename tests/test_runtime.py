"""Runtimes: what each of them is alone in: ONNX files, kernels in OpenVINO, precisions of torch, blocks of weights."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from beats_search import plugins
from beats_search.compression.quantization import Quantization
from beats_search.measuring.latency import measure_latency
from beats_search.measuring.machine import describe_machine
from beats_search.measuring.quality import check_parity
from beats_search.records.errors import TrialError
from beats_search.records.part import Part, Setting
from beats_search.runtimes._torch_engine import Compute, ProgramFile, TorchEngine
from beats_search.runtimes._torch_program import executed_as, export_program, input_shape
from beats_search.runtimes._two_bits import widen_two_bits
from beats_search.tensors.network import with_preprocess
from beats_search.tensors.seams import Bench, Runtime

IMAGES = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0))
EXAMPLE = IMAGES[:1]


def runtime(name: str, **settings: Setting) -> Runtime:
    """Return a runtime by name."""
    made: Runtime = plugins.make("runtimes", Part(name=name, settings=tuple(settings.items())))
    return made


def resnet(bench: Bench, width: int = 8) -> nn.Module:
    """Return an untrained ResNet behind its preprocessing."""
    torch.manual_seed(0)
    network = plugins.make("models", Part(name="resnet", settings=(("width", width),))).build((1, 8, 8), 10)
    return with_preprocess(bench.data.preprocess, network).eval()


def linear(*widths: int) -> nn.Module:
    """Return linear layers of these widths on flat images."""
    torch.manual_seed(0)
    layers = [layer for sizes in pairwise(widths) for layer in (nn.Linear(*sizes), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers[:-1]).eval()


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the ONNX file of a network with a batch norm."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    return runtime("onnxruntime").deploy(model, EXAMPLE, tmp_path_factory.mktemp("file") / "model.onnx").path


def test_onnx_file_names_its_input_and_output_and_holds_no_batch_norm(onnx_file: Path) -> None:
    """The file takes `input`, yields `logits`, leaves the batch open, and batch norms are folded away."""
    graph = onnx.load(onnx_file).graph
    (given,), (told,) = graph.input, graph.output
    assert (given.name, told.name) == ("input", "logits")
    assert given.type.tensor_type.shape.dim[0].dim_param
    assert "BatchNormalization" not in {node.op_type for node in graph.node}


def test_both_onnx_runtimes_compute_the_same_from_the_same_file(onnx_file: Path) -> None:
    """A file of one runtime loads in the other and gives its logits."""
    logits = [runtime(name).load(onnx_file).logits(IMAGES) for name in ("onnxruntime", "openvino")]
    check_parity(logits[0], logits[1], exact=True)


def test_normalization_is_inside_the_file(bench: Bench, tmp_path: Path) -> None:
    """A plain session fed with images as the user has them gives the logits of the whole model."""
    model = resnet(bench)
    runtime("onnxruntime").deploy(model, EXAMPLE, tmp_path / "model.onnx")
    plain = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"input": IMAGES.numpy()})[0]
    with torch.inference_mode():
        assert np.allclose(plain, model(IMAGES).numpy(), atol=1e-4)


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """Return a wide network that tells which corner of an image is bright, and such images."""
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (512,), generator=random)
    images = 0.5 * torch.rand(512, 1, 8, 8, generator=random)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[0, 4 * (label // 2) :][:4, 4 * (label % 2) :][:, :4] += 0.5
    model = linear(64, 512, 512, 256, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(20):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(images), labels))
        optimizer.step()
    return model, images, labels


@pytest.mark.parametrize(("bits", "share"), [(8, 0.4), (4, 0.3)])
def test_wide_linear_layers_in_blocks_weigh_less_and_decide_alike(
    trained: tuple[nn.Module, Tensor, Tensor], tmp_path: Path, bits: int, share: float
) -> None:
    """With weights in blocks of few bits the file shrinks, and at least 98 % of decisions stay."""
    model, images, _ = trained
    whole = runtime("onnxruntime").deploy(model, EXAMPLE, tmp_path / "whole.onnx")
    small = runtime("onnxruntime", linear_bits=bits).deploy(model, EXAMPLE, tmp_path / "small.onnx")
    check_parity(small.logits(images), whole.logits(images), exact=False)
    assert small.path.stat().st_size < share * whole.path.stat().st_size
    assert small.executed_as == "mixed"  # the first and the last layer are narrow, and stay in float


@pytest.mark.parametrize(
    ("name", "settings", "faithful"),
    [
        ("onnxruntime", {}, True),
        ("onnxruntime", {"linear_bits": 8}, False),
        ("onnxruntime", {"linear_bits": 4}, False),
        ("openvino", {}, True),
        ("openvino", {"precision": "bf16"}, False),
        ("torch_eager", {}, True),
        ("torch_eager", {"precision": "bf16"}, False),
        ("torch_compile", {}, True),
        ("torch_compile", {"precision": "bf16"}, False),
        ("torch_compile", {"precision": "fp16", "device": "cuda"}, False),
    ],
)
def test_a_runtime_says_whether_it_computes_a_model_as_it_is(
    name: str, settings: dict[str, Setting], *, faithful: bool
) -> None:
    """What stores or computes in fewer bits than the model has does not promise its logits."""
    assert runtime(name, **settings).faithful == faithful


@pytest.mark.parametrize(("bits", "precision"), [(8, "int8"), (4, "int4")])
def test_where_all_layers_are_in_blocks_the_file_says_so(tmp_path: Path, bits: int, precision: str) -> None:
    """The precision is that of the weights when no heavy kernel is left in float."""
    engine = runtime("onnxruntime", linear_bits=bits).deploy(linear(64, 1024, 64), EXAMPLE, tmp_path / "model.onnx")
    assert engine.executed_as == precision


def test_blocks_leave_other_models_as_they_are(bench: Bench, tmp_path: Path) -> None:
    """A model without wide linear layers is exported as ever."""
    for name, bits in (("as_ever", 32), ("blocks", 4)):
        runtime("onnxruntime", linear_bits=bits).deploy(resnet(bench), EXAMPLE, tmp_path / name)
    assert runtime("onnxruntime").load(tmp_path / "blocks").executed_as == "fp32"
    logits = [runtime("onnxruntime").load(tmp_path / name).logits(IMAGES) for name in ("as_ever", "blocks")]
    assert torch.equal(*logits)


def test_blocks_leave_the_logging_of_the_process_alone(tmp_path: Path) -> None:
    """The library that makes blocks sets up logging when it is imported; nothing of that is left."""
    script = (
        "import logging; from pathlib import Path; from beats_search.runtimes._block_weights import _quantizer_class;"
        "_quantizer_class(); root = logging.getLogger(); assert (root.handlers, root.level) == ([], logging.WARNING)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=False).returncode == 0


def packed_file(path: Path, kind: int, random: np.random.Generator) -> Path:
    """Write a quantized convolution and a linear layer whose weights are packed in few bits; return the path."""
    most = 1 if kind == TensorProto.INT2 else 7
    nodes, held = [], []

    def hold(name: str, values: NDArray[np.generic]) -> str:
        held.append(numpy_helper.from_array(values, name))
        return name

    def on_grid(source: str, name: str, scale: float) -> str:
        grid = [hold(f"{name}.scale", np.float32(scale)), hold(f"{name}.zero", np.uint8(0))]  # type: ignore[arg-type]  # arrays of no dimension
        nodes.append(helper.make_node("QuantizeLinear", [source, *grid], [f"{name}.steps"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}.steps", *grid], [name]))
        return name

    def weight(name: str, shape: tuple[int, ...], input_scale: float) -> list[str]:
        steps = random.integers(-most, most + 1, shape)
        held.append(helper.make_tensor(f"{name}.packed", kind, shape, steps.flatten().tolist()))
        nodes.append(helper.make_node("Cast", [f"{name}.packed"], [f"{name}.steps"], to=TensorProto.INT8))
        scale = random.uniform(0.01, 0.02, shape[0]).astype(np.float32)
        zero = hold(f"{name}.zero", np.zeros(shape[0], np.int8))
        given = [f"{name}.steps", hold(f"{name}.scale", scale), zero]
        nodes.append(helper.make_node("DequantizeLinear", given, [name], axis=0))
        bias = hold(f"{name}.bias_steps", random.integers(-50, 50, shape[0]).astype(np.int32))
        bias_scale = hold(f"{name}.bias_scale", (input_scale * scale).astype(np.float32))
        nodes.append(helper.make_node("DequantizeLinear", [bias, bias_scale], [f"{name}.bias"], axis=0))
        return [name, f"{name}.bias"]

    scaled = on_grid("input", "pixels", 1 / 255)
    nodes.append(helper.make_node("Conv", [scaled, *weight("conv", (16, 1, 3, 3), 1 / 255)], ["conv.out"]))
    nodes.append(helper.make_node("Relu", ["conv.out"], ["relu"]))
    nodes.append(helper.make_node("Flatten", [on_grid("relu", "features", 0.01)], ["flat"]))
    flat = on_grid("flat", "flat_features", 0.01)
    nodes.append(helper.make_node("Gemm", [flat, *weight("linear", (10, 576), 0.01)], ["logits"], transB=1))
    graph = helper.make_graph(
        nodes,
        "packed",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        held,
    )
    opsets = [helper.make_opsetid("", 25 if kind == TensorProto.INT2 else 21)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=13), path)
    return path


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.INT2], ids=TensorProto.DataType.Name)
def test_weights_packed_in_few_bits_run_in_int8_in_both_onnx_runtimes(tmp_path: Path, kind: int) -> None:
    """Packed weights are unpacked when the file is loaded: the kernels are those of 8 bits, and the logits too."""
    path = packed_file(tmp_path / "model.onnx", kind, np.random.default_rng(0))
    first = runtime("onnxruntime").load(path)
    expected = first.logits(IMAGES)
    assert first.executed_as == "int8"
    widen_two_bits(path)
    second = runtime("openvino").load(path)
    assert second.executed_as == "int8"
    torch.testing.assert_close(second.logits(IMAGES), expected, atol=0.02, rtol=0)  # a step of the features or two


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_fewer_bits_never_make_a_larger_file(bench: Bench, name: str, tmp_path: Path) -> None:
    """Of one network the file shrinks from 8 bits to 4, and with 2 it is no larger than with 4."""
    model = linear(64, 256, 256, 10)
    paths = [
        runtime(name).deploy(Quantization(bits=bits).apply(model, bench), EXAMPLE, tmp_path / f"{bits}.onnx").path
        for bits in (8, 4, 2)
    ]
    eight, four, two = (path.stat().st_size for path in paths)
    assert four < 0.75 * eight
    assert two <= four


def test_what_needs_no_widening_is_not_written_again(tmp_path: Path) -> None:
    """A file without weights of 2 bits stays as it is, to the byte."""
    path = packed_file(tmp_path / "model.onnx", TensorProto.INT4, np.random.default_rng(0))
    before = path.read_bytes()
    widen_two_bits(path)
    assert path.read_bytes() == before


def _computes_in_bf16() -> bool:
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.parametrize(
    "name",
    [pytest.param("openvino", marks=pytest.mark.skipif(not _computes_in_bf16(), reason="no bf16 here")), "torch_eager"],
)
def test_bf16_is_what_all_heavy_kernels_compute_in(name: str, bench: Bench, tmp_path: Path) -> None:
    """With `precision: bf16` inputs and logits stay float, and convolutions and products are in bf16."""
    made, model = runtime(name, precision="bf16"), resnet(bench)
    engine = made.deploy(model, EXAMPLE, tmp_path / f"model{made.suffix}")
    assert engine.executed_as == "bf16"
    assert engine.logits(IMAGES).dtype == torch.float32
    with torch.inference_mode():
        expected = model(IMAGES)
    difference = (engine.logits(IMAGES) - expected).abs().max()
    assert 0 < difference < 0.05 * expected.abs().max()


class _Attentive(nn.Module):
    """A transformer on the rows of an image, with a weight of its own and norms of two kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.norm = nn.Linear(8, 16), nn.BatchNorm1d(8)
        self.position = nn.Parameter(torch.randn(1, 8, 16))
        self.attend = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        rows = self.norm(self.rows(images.squeeze(1))) + self.position
        logits: Tensor = self.head(self.attend(rows).mean(dim=1))
        return logits


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_program_computes_in_the_precision_that_was_asked_for(precision: str) -> None:
    """All products of a program are in one precision, whatever layers are between them; the model stays as it is."""
    model = _Attentive().eval()
    program = export_program(model, EXAMPLE, precision)
    assert executed_as(program) == precision
    assert input_shape(program) == (1, 8, 8)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_products_in_two_precisions_are_mixed() -> None:
    """A program of which a part was left in float says so."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(64, 8).bfloat16(), nn.Linear(8, 10)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.other(self.one(images.flatten(1).bfloat16()).float())
            return logits

    assert executed_as(export_program(Both(), EXAMPLE, "fp32")) == "mixed"


def test_bf16_on_a_processor_without_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO would compute in fp32 and say nothing, so this says it."""
    import beats_search.runtimes.openvino as module

    class Old:
        def get_property(self, *_: str) -> list[str]:
            return ["FP32", "INT8"]

    monkeypatch.setattr(module, "_core", Old)
    with pytest.raises(ValueError, match="needs a processor that computes in it"):
        runtime("openvino", precision="bf16").deploy(linear(64, 10), EXAMPLE, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["torch_eager", "torch_compile"])
def test_fp16_is_for_other_devices_than_the_cpu(name: str) -> None:
    """What a CPU does not compute in is refused with the settings."""
    with pytest.raises(ValueError, match="fp16 needs device: cuda"):
        runtime(name, precision="fp16")


def test_cuda_graphs_are_for_other_devices_than_the_cpu() -> None:
    """There is nothing to capture on a CPU."""
    with pytest.raises(ValueError, match="cuda_graphs needs device: cuda"):
        runtime("torch_compile", cuda_graphs=True)


def test_torch_computes_on_as_many_threads_as_the_settings_say(tmp_path: Path) -> None:
    """A call sets torch's threads, which are one number for the process, and puts the former one back."""
    seen: list[int] = []

    def program(inputs: Tensor) -> Tensor:
        seen.append(torch.get_num_threads())
        return inputs

    file = ProgramFile(path=tmp_path, input_shape=(3,), executed_as="fp32", fresh=lambda: program)
    engine = TorchEngine(file, Compute(device=torch.device("cpu"), threads=3, batch_size=2))
    before = torch.get_num_threads()
    assert engine.logits(torch.zeros(5, 3)).shape == (5, 3)
    call = engine.open()
    call(), call()
    assert seen == [3, 3, 3]
    assert torch.get_num_threads() == before


def test_a_program_holds_no_inputs(tmp_path: Path) -> None:
    """What the model was exported with, an image of the training data, is not part of the file."""
    image = torch.full((1, 1, 8, 8), 0.123)
    engine = runtime("torch_eager").deploy(linear(64, 10), image, tmp_path / "model.pt2")
    assert torch.export.load(engine.path).example_inputs is None
    assert image.numpy().tobytes()[:16] not in engine.path.read_bytes()


def test_without_a_compiler_torch_compile_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a C++ compiler gets told so, before anything is exported."""
    from torch._inductor.exc import InvalidCxxCompiler

    import beats_search.runtimes._torch_aot as module

    def none() -> str:
        raise InvalidCxxCompiler

    monkeypatch.setattr(module, "get_cpp_compiler", none)
    with pytest.raises(TrialError, match=r"needs a C\+\+ compiler, and there is none: install one"):
        runtime("torch_compile").deploy(linear(64, 10), EXAMPLE, tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


def _has_int8_instructions() -> bool:
    known = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}
    return not known.isdisjoint(describe_machine()["instructions"].split(", "))


@pytest.mark.slow
@pytest.mark.skipif(not _has_int8_instructions(), reason="this processor has no instructions for int8 products")
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_int8_is_faster_where_the_network_is_wide(name: str, bench: Bench, tmp_path: Path) -> None:
    """For the widest network of the quick start, integer kernels take less time than float ones."""
    made, model = runtime(name, batch_size=16), resnet(bench, width=64)
    wide = made.deploy(model, EXAMPLE, tmp_path / "float.onnx")
    integer = made.deploy(Quantization(bits=8).apply(model, bench), EXAMPLE, tmp_path / "int8.onnx")
    assert measure_latency(integer.open, wide.open).ratio_interval.high < 1


@pytest.mark.slow
def test_nncf_s_model_of_a_float_file_runs_in_int8(bench: Bench, tmp_path: Path) -> None:
    """OpenVINO's own quantization of a float file is a baseline that the runtime loads like its own."""
    pytest.importorskip("nncf")
    from beats_search.runtimes._nncf import quantize_with_nncf

    floating = runtime("openvino").deploy(resnet(bench, width=16), EXAMPLE, tmp_path / "model.onnx")
    quantize_with_nncf(floating.path, bench.data.train.inputs[:64], tmp_path / "model.xml")
    integer, logits = runtime("openvino").load(tmp_path / "model.xml"), floating.logits(IMAGES)
    assert integer.executed_as == "int8"
    assert (integer.logits(IMAGES) - logits).abs().max() < 0.2 * logits.abs().max()
