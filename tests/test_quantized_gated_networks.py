"""Quantized networks with gates (squeeze and excitation, SiLU): files compute as torch does."""

from pathlib import Path

import pytest
from quantized_families import BITS, Method, check_file, check_learned, learned, rounded

FAMILIES = ["mobilenet_v3_small", "efficientnet_b0"]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_network_is_worth_comparing(family: str) -> None:
    """Before it is quantized, it is right about nine of ten of its images, and decides for all classes alike."""
    check_learned(family)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "bits"),
    [("mobilenet_v3_small", bits) for bits in BITS] + [("efficientnet_b0", 8), ("efficientnet_b0", 3)],
)
@pytest.mark.parametrize("method", [rounded, learned])
def test_the_file_computes_as_the_model(family: str, method: Method, bits: int, tmp_path: Path) -> None:
    """On noisy images logits and decisions are equal, and no heavy kernel of the optimized graph is float."""
    check_file(family, method, bits, tmp_path)
