"""Footprint: a model and its exported file in, size, parameters and multiply-accumulates out."""

from pathlib import Path

from torch import Tensor, nn

from beats_search.records.outcome import Footprint
from beats_search.tensors.fake_quant import QuantizedWeight
from beats_search.tensors.network import macs

_BYTES_PER_KB = 1000


def measure_footprint(model: nn.Module, example: Tensor, path: Path) -> Footprint:
    """Return what the model and its file weigh; `example` is one input with its batch dimension."""
    return Footprint(
        size_kb=path.stat().st_size / _BYTES_PER_KB, parameters=parameters(model), macs=macs(model, example)
    )


def parameters(model: nn.Module) -> int:
    """Count the weights and biases of a model, float or integer."""
    integers = [module for module in model.modules() if isinstance(module, QuantizedWeight)]
    return sum(weight.numel() for weight in model.parameters()) + sum(
        module.steps.numel() + module.bias_steps.numel() for module in integers
    )
