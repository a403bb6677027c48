"""What makes training fast changes nothing that it computes, to the bit."""

import ctypes
import subprocess
import sys

import pytest
import torch
from torch import Generator, nn

from beats_search.tensors.data import Split
from beats_search.training.fit import _batches, _dealt
from beats_search.training.pooling import arrange_as, pool_first


def network() -> nn.Sequential:
    """Return a network with poolings of several kinds, one block of it nested; always the same weights."""
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(3, stride=2), inner, nn.Linear(36, 3), nn.ReLU())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pooling_first_changes_neither_outputs_nor_gradients(dtype: torch.dtype) -> None:
    """A ReLU after a MaxPool2d gives what it gave before it, bit by bit, ties included."""
    before, after = network().to(dtype), network().to(dtype)
    pool_first(after)
    assert [type(child) for child in after][1:3] == [nn.MaxPool2d, nn.ReLU]
    images = torch.randn(8, 1, 16, 16, generator=Generator().manual_seed(1)).round(decimals=1).to(dtype)
    for model in (before, after):
        model(images).square().sum().backward()
    for name, parameter in before.named_parameters():
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, after.get_parameter(name).grad), name  # type: ignore[arg-type]  # it has one


def test_a_rearranged_model_is_arranged_back() -> None:
    """Children are in the order of the original again; one that was pooled first from the beginning stays so."""
    model = nn.Sequential(network(), nn.Sequential(nn.MaxPool2d(2), nn.ReLU()))
    other = nn.Sequential(network(), nn.Sequential(nn.MaxPool2d(2), nn.ReLU()))
    pool_first(other)
    assert str(other) != str(model)
    arrange_as(other, model)
    assert str(other) == str(model)


def test_a_module_that_stands_twice_stays_twice() -> None:
    """One ReLU used in two places of a Sequential is called in both, before and after."""
    relu = nn.ReLU()
    model = nn.Sequential(nn.Conv2d(1, 2, 3), relu, nn.MaxPool2d(2), nn.Conv2d(2, 2, 3), relu, nn.Flatten())
    pool_first(model)
    assert [type(child).__name__ for child in model] == ["Conv2d", "MaxPool2d", "ReLU", "Conv2d", "ReLU", "Flatten"]


@pytest.mark.parametrize(("count", "size"), [(7, 3), (65, 64), (5000, 64), (2000, 1)])
def test_gathered_batches_are_those_that_were_dealt(count: int, size: int) -> None:
    """Gathering many batches at once gives the inputs and labels that each would have got on its own."""
    inputs = torch.randint(0, 255, (count, 1, 28, 28), dtype=torch.uint8, generator=Generator().manual_seed(0))
    train = Split(inputs=inputs, labels=torch.arange(count))
    batches = _batches(count, size, Generator().manual_seed(1))
    dealt = list(_dealt(train, batches))
    assert len(dealt) == len(batches)
    for batch, (images, labels) in zip(batches, dealt, strict=True):
        assert torch.equal(labels, batch)
        assert torch.equal(images, inputs[batch].float() / 255)


_BLOCKS = """
import ctypes, torch
from beats_search.training.memory import keep_freed_memory

class Malloc(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

library = ctypes.CDLL(None)
library.mallinfo2.restype = Malloc

def take():
    start = library.mallinfo2()
    blocks = [torch.zeros(7 * 2**20) for _ in range(8)]
    held = library.mallinfo2()
    del blocks
    return held.hblks - start.hblks, held.arena - library.mallinfo2().arena

print(*take(), keep_freed_memory(), *take())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="the setting is that of the GNU C library")
def test_freed_memory_is_kept() -> None:
    """After the setting, large blocks come from the heap, and the heap keeps what is freed."""
    printed = subprocess.check_output([sys.executable, "-c", _BLOCKS], text=True).split()
    assert printed[2] == "True"
    mapped, _, _, mapped_after, given_back_after = printed
    assert int(mapped) > 0
    assert (mapped_after, given_back_after) == ("0", "0")
