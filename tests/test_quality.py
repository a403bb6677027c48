"""Quality and footprint: shares with intervals, parity of a file with its model, work counted as on paper."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from beats_search.compression._conversion import quantize
from beats_search.measuring.footprint import parameters
from beats_search.measuring.machine import describe_machine
from beats_search.measuring.quality import accuracy, accuracy_interval, check_parity
from beats_search.records.errors import ParityError
from beats_search.tensors.network import macs, traffic


@given(right=st.integers(0, 300), wrong=st.integers(0, 300))
@example(right=0, wrong=62)  # rounding put the low end above 0
def test_accuracy_interval_holds_the_share(right: int, wrong: int) -> None:
    """The interval of a share holds that share, lies within 0…1 and is wider for fewer trials."""
    count = right + wrong + 1
    share = right / count
    interval = accuracy_interval(share, count)
    assert 0 <= interval.low <= share <= interval.high <= 1
    wider, narrower = interval.high - interval.low, accuracy_interval(share, 4 * count)
    assert narrower.high - narrower.low < wider


def test_accuracy_counts_rows() -> None:
    """Accuracy is the share of rows whose largest logit is at the label."""
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [0.0, 5.0]])
    assert accuracy(logits, torch.tensor([0, 1, 1, 1])) == 0.75


def test_parity_in_float_allows_last_digits_only() -> None:
    """Float files must give the model's logits; integer files must give its decisions."""
    expected = torch.randn(100, 5)
    check_parity(expected + 1e-5, expected, exact=True)
    with pytest.raises(ParityError, match=r"differ by 0\.1"):
        check_parity(expected + 0.1, expected, exact=True)
    check_parity(expected * 1.1, expected, exact=False)
    with pytest.raises(ParityError, match="decides like the model"):
        check_parity(-expected, expected, exact=False)
    with pytest.raises(ParityError, match="not finite"):
        check_parity(expected * math.nan, expected, exact=False)


def test_macs_are_counted_as_on_paper() -> None:
    """A 3×3 convolution and a linear layer cost outputs × inputs of each output."""
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 25, 10))
    assert macs(model, torch.rand(1, 2, 5, 5)) == 25 * 4 * 2 * 9 + 100 * 10


def test_traffic_is_what_the_layers_put_out() -> None:
    """Maps count in groups of 16 channels, vectors as they are, for one input; the model is left without hooks."""
    model = nn.Sequential(nn.Conv2d(2, 17, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(17 * 25, 10))
    assert traffic(model, torch.rand(3, 2, 5, 5)) == (2 * 32 * 25 + 17 * 25 + 10, 4)
    assert not any(part._forward_hooks for part in model.modules())


def test_quantizing_keeps_macs_and_parameters() -> None:
    """Integer weights are as many weights, and products of integers are as many products."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10)).eval()
    images = torch.rand(8, 1, 8, 8)
    quantized = quantize(model, images)
    assert macs(quantized, images[:1]) == macs(model, images[:1])
    assert parameters(quantized) == parameters(model)


def test_machine_is_described_from_what_the_kernel_says(tmp_path: Path) -> None:
    """Processor and instructions are read from the kernel's text, versions from the installation."""
    (tmp_path / "cpuinfo").write_text("model name\t: Toy 9000\nflags\t\t: fpu avx2 avx512_vnni\n")
    facts = describe_machine(tmp_path / "cpuinfo")
    assert facts["processor"] == "Toy 9000"
    assert facts["instructions"] == "avx2, avx512_vnni"
    assert facts["torch"] == torch.__version__.partition("+")[0] or facts["torch"] == torch.__version__
