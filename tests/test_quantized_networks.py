"""Quantized networks: chains and residual networks at every bit-width decide in their files as in torch."""

from pathlib import Path

import pytest
from quantized_families import BITS, Method, check_decisions, learned, rounded


@pytest.mark.slow
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("method", [rounded, learned])
@pytest.mark.parametrize("family", ["mlp", "cnn", "resnet", "resnet18", "mobilenet_v2", "shufflenet_v2_x0_5"])
def test_the_file_decides_as_the_model(family: str, method: Method, bits: int, tmp_path: Path) -> None:
    """On noisy images 99.5 % of decisions are equal, and no heavy kernel of the optimized graph is float."""
    check_decisions(family, method, bits, tmp_path)
