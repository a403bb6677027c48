"""Runtimes: one conformance suite over every runtime on the shelf, on exported files of tiny networks."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from beats_search import plugins
from beats_search.compression.quantization import quantize
from beats_search.measuring.latency import measure_latency
from beats_search.measuring.machine import describe_machine
from beats_search.records.part import Part
from beats_search.tensors.network import with_preprocess
from beats_search.tensors.seams import Bench, Engine, Runtime


def _model(bench: Bench, width: int = 8) -> nn.Module:
    torch.manual_seed(0)
    network = plugins.make("models", Part(name="resnet", settings=(("width", width),))).build((1, 8, 8), 10)
    return with_preprocess(bench.data.preprocess, network).eval()


@pytest.fixture(scope="module", params=plugins.names("runtimes"))
def deployed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Runtime, Engine, nn.Module]:
    """Return each runtime with a model that it has exported, and the model."""
    runtime: Runtime = plugins.make("runtimes", Part(name=request.param))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.append(nn.Linear(4, 10))
    model.train()(torch.rand(64, 1, 8, 8))
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    return runtime, runtime.deploy(model.eval(), torch.rand(1, 1, 8, 8), path), model


@pytest.mark.parametrize("count", [1, 2, 7, 600])
def test_any_number_of_inputs_gives_the_model_s_logits(deployed: tuple[Runtime, Engine, nn.Module], count: int) -> None:
    """The file takes any batch and computes what the model computes."""
    _, engine, model = deployed
    inputs = torch.rand(count, 1, 8, 8)
    with torch.inference_mode():
        assert torch.allclose(engine.logits(inputs), model(inputs), atol=1e-5)


def test_loading_the_file_again_gives_the_same_logits(deployed: tuple[Runtime, Engine, nn.Module]) -> None:
    """`load` of a deployed file is the deployed engine, to the bit."""
    runtime, engine, _ = deployed
    inputs = torch.rand(5, 1, 8, 8)
    assert torch.equal(runtime.load(engine.path).logits(inputs), engine.logits(inputs))


def test_each_opening_is_a_call_of_its_own(deployed: tuple[Runtime, Engine, nn.Module]) -> None:
    """`open` gives a fresh call that can be made again and again."""
    _, engine, _ = deployed
    first, second = engine.open(), engine.open()
    assert first is not second
    assert first() is not None
    assert second() is not None


def test_float_model_executes_as_fp32(deployed: tuple[Runtime, Engine, nn.Module]) -> None:
    """A model that was not quantized runs on float kernels, and says so."""
    assert deployed[1].executed_as == "fp32"


def test_file_names_its_input_and_output_and_holds_no_batch_norm(
    deployed: tuple[Runtime, Engine, nn.Module],
) -> None:
    """The file takes `input`, yields `logits`, leaves the batch open, and batch norms are folded away."""
    graph = onnx.load(deployed[1].path).graph
    (given,), (told,) = graph.input, graph.output
    assert (given.name, told.name) == ("input", "logits")
    assert given.type.tensor_type.shape.dim[0].dim_param
    assert "BatchNormalization" not in {node.op_type for node in graph.node}


def test_file_tells_no_paths_of_this_machine(deployed: tuple[Runtime, Engine, nn.Module]) -> None:
    """Nothing of the exporter's traces is left in the file."""
    assert str(Path(__file__).parents[1]).encode() not in deployed[1].path.read_bytes()


def test_normalization_is_inside_the_file(bench: Bench, tmp_path: Path) -> None:
    """A plain session fed with images as the user has them gives the logits of the whole model."""
    model = _model(bench)
    runtime: Runtime = plugins.make("runtimes", Part(name="onnxruntime"))
    runtime.deploy(model, bench.data.train.inputs[:1], tmp_path / "model.onnx")
    images = bench.data.train.inputs[:20]
    plain = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"input": images.numpy()})[0]
    with torch.inference_mode():
        assert np.allclose(plain, model(images).numpy(), atol=1e-4)


@pytest.mark.parametrize("settings", [{"threads": 0}, {"batch_size": 0}])
def test_nonsense_is_refused(settings: dict[str, int]) -> None:
    """A call by no thread or of no input is refused."""
    with pytest.raises(ValueError, match="at least 1"):
        plugins.settings_class("runtimes", "onnxruntime")(**settings)


def _has_int8_instructions() -> bool:
    facts = describe_machine()["instructions"].split(", ")
    return bool({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"} & set(facts))


@pytest.mark.slow
@pytest.mark.skipif(not _has_int8_instructions(), reason="this processor has no instructions for int8 products")
def test_int8_is_faster_where_the_network_is_wide(bench: Bench, tmp_path: Path) -> None:
    """For the widest network of the quick start, integer kernels take less time than float ones."""
    runtime: Runtime = plugins.make("runtimes", Part(name="onnxruntime", settings=(("batch_size", 16),)))
    model, example = _model(bench, width=64), bench.data.train.inputs[:1]
    wide = runtime.deploy(model, example, tmp_path / "float.onnx")
    integer = runtime.deploy(quantize(model, bench.data.train.inputs), example, tmp_path / "int8.onnx")
    latency = measure_latency(integer.open, wide.open)
    assert latency.ratio_interval.high < 1
