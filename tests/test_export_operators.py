"""The exporter's table of operators: one for all graphs, and torch's own way of making it is left as it was."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

from beats_search.runtimes._operators import one_table


def file_of(model: nn.Module) -> bytes:
    """Return what torch writes for a model that takes two features."""
    program = torch.onnx.export(model, (torch.zeros(2, 2),), dynamo=True, verbose=False)
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


def test_graphs_share_a_table_and_are_as_without() -> None:
    """Within, each opset has one table; a graph made with it is the one that torch makes alone."""
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU()).eval()
    alone = file_of(model)
    with one_table():
        assert ONNXRegistry.from_torchlib() is ONNXRegistry.from_torchlib()
        assert ONNXRegistry.from_torchlib() is not ONNXRegistry.from_torchlib(opset_version=20)
        kept = ONNXRegistry.from_torchlib()
        assert file_of(model) == alone
    with one_table():
        assert ONNXRegistry.from_torchlib() is kept


def test_others_make_their_own() -> None:
    """Outside, also after an export that failed, torch makes a table for each graph: its users may add to it."""
    made: Callable[..., Any] = vars(ONNXRegistry)["from_torchlib"]
    with pytest.raises(ZeroDivisionError), one_table(), one_table():
        _ = 1 / 0
    assert vars(ONNXRegistry)["from_torchlib"] is made
    assert ONNXRegistry.from_torchlib() is not ONNXRegistry.from_torchlib()


def test_a_torch_that_makes_it_elsewhere_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is put where nothing was."""
    monkeypatch.delattr(ONNXRegistry, "from_torchlib")
    with one_table():
        assert "from_torchlib" not in vars(ONNXRegistry)
    assert "from_torchlib" not in vars(ONNXRegistry)
