"""Torch engine: a file that torch runs, a device and a number of threads in, logits and calls to time out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias, final

import torch
from torch import Tensor

Program: TypeAlias = Callable[[Tensor], Tensor]
"""Inputs (n, …) on its device to logits (n, classes) on its device."""

_EVALUATION_BATCH: Final = 512
_WARM_UPS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """Where and with what a program is called: `threads` of the CPU, `batch_size` inputs in the call that is timed."""

    device: torch.device
    threads: int
    batch_size: int
    cuda_graphs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramFile:
    """What a file says of itself, and how to make a program of it; each time a fresh one, if that is to be had."""

    path: Path
    input_shape: tuple[int, ...]
    executed_as: str
    fresh: Callable[[], Program]


@final
class TorchEngine:
    """A file that torch runs. A call takes inputs from the main memory and leaves its logits there."""

    def __init__(self, file: ProgramFile, compute: Compute) -> None:
        """Remember the file; programs are made when they are needed."""
        self._file = file
        self._compute = compute

    @property
    def path(self) -> Path:
        """The exported file."""
        return self._file.path

    @property
    def executed_as(self) -> str:
        """The precision of all heavy operators: fp32, bf16 or fp16, or `mixed` for several."""
        return self._file.executed_as

    def logits(self, inputs: Tensor) -> Tensor:
        """Return the logits (n, classes) of float inputs (n, …), computed in large batches."""
        program, device = self._file.fresh(), self._compute.device
        with torch.inference_mode(), Threads(self._compute.threads):
            chunks = [program(chunk.to(device)).cpu() for chunk in torch.split(inputs, _EVALUATION_BATCH)]
        return torch.cat(chunks)

    def open(self) -> Callable[[], object]:
        """Make a fresh program and return the call to time: one batch of noise.

        The call sets torch's number of threads, which is one for the whole process, and puts it back
        (under a microsecond for each).
        """
        noise = self._noise()
        program, device, threads = self._file.fresh(), self._compute.device, Threads(self._compute.threads)
        run = _captured(program, noise.to(device)) if self._compute.cuda_graphs else _from_memory(program, device)

        def call() -> Tensor:
            with torch.inference_mode(), threads:
                return run(noise).cpu()

        return call

    def _noise(self) -> Tensor:
        shape = (self._compute.batch_size, *self._file.input_shape)
        return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@final
class Threads:
    """Computes what is within on so many threads, and puts torch's own number back after."""

    def __init__(self, count: int) -> None:
        """Keep the number of threads."""
        self._count = count
        self._before = count

    def __enter__(self) -> None:
        """Set the number."""
        self._before = torch.get_num_threads()
        torch.set_num_threads(self._count)

    def __exit__(self, *_: object) -> None:
        """Put the former one back."""
        torch.set_num_threads(self._before)


def find_device(name: str) -> torch.device:
    """Return `cpu`, the CUDA device of that name, or with `auto` a CUDA device where there is one, else the CPU.

    Raises ValueError for a device that this machine does not have.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if count else "cpu"
    present = ("cpu", *(("cuda",) if count else ()), *(f"cuda:{index}" for index in range(count)))
    if name not in present:
        raise ValueError(f"{name} is not on this machine; device needs to be auto or one of {', '.join(present)}")
    return torch.device(name)


def check_precision(precision: str, device: str) -> None:
    """Raise ValueError for a precision that a device of that name does not compute in."""
    if precision == "fp16" and device == "cpu":
        raise ValueError("precision fp16 needs device: cuda; a CPU computes in fp32 or bf16")


def _from_memory(program: Program, device: torch.device) -> Program:
    return lambda inputs: program(inputs.to(device))


def _captured(program: Program, example: Tensor) -> Program:
    """Return a program that replays all kernels of one call as one CUDA graph, for inputs of the shape of `example`."""
    given, stream = example.clone(), torch.cuda.Stream(example.device)  # type: ignore[no-untyped-call]  # torch's own
    stream.wait_stream(torch.cuda.current_stream(example.device))
    with torch.inference_mode(), torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):  # what is chosen and allocated at first may not be captured
            program(given)
    torch.cuda.current_stream(example.device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        logits = program(given)

    def replay(inputs: Tensor) -> Tensor:
        given.copy_(inputs)
        graph.replay()
        return logits

    return replay
