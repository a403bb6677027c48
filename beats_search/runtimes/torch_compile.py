"""Torch, compiled: a model in, a package of compiled code and weights and an engine that runs it out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import ClassVar, Final, Literal, final

from torch import Tensor, nn

from beats_search.runtimes._call import check_call
from beats_search.runtimes._torch_engine import (
    Compute,
    Program,
    ProgramFile,
    Threads,
    TorchEngine,
    check_precision,
    find_device,
)
from beats_search.runtimes._torch_program import executed_as, export_program, input_shape, on_device

__all__ = ["TorchCompile"]

_COPIES: Final = 3


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TorchCompile:
    """torch's compiler ahead of time (AOTInductor): one package of machine code and weights, made once per model.

    Compiling takes seconds to a minute and needs a C++ compiler; running the package needs none,
    but a processor like this one and the same torch. Models on integer grids compute in float here.
    `device` is cpu, cuda, cuda:<index>, or auto: cuda where there is one. `cuda_graphs` replays all
    kernels of a call at once.
    """

    suffix: ClassVar[str] = ".pt2"

    threads: int = 1
    batch_size: int = field(default=1, metadata={"knob": False})
    device: str = "cpu"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    cuda_graphs: bool = False

    def __post_init__(self) -> None:
        """Refuse a call of nothing, or by nobody, and what the device does not have."""
        check_call(threads=self.threads, batch_size=self.batch_size)
        check_precision(self.precision, self.device)
        if self.cuda_graphs and self.device == "cpu":
            raise ValueError("cuda_graphs needs device: cuda or auto, got cpu")

    @property
    def faithful(self) -> bool:
        """Whether a model stays as it is: in a lower precision it rounds otherwise."""
        return self.precision == "fp32"

    def deploy(self, model: nn.Module, example: Tensor, path: Path) -> TorchEngine:
        """Compile the model into `path` and load it.

        Raises TrialError when there is no C++ compiler, ValueError when the device is not on this machine.
        """
        from beats_search.runtimes._torch_aot import check_compiler, compile_package  # noqa: PLC0415 - takes seconds

        device = find_device(self.device)
        check_precision(self.precision, device.type)
        check_compiler()
        program = on_device(export_program(model, example, self.precision), device)
        facts = {
            "executed_as": executed_as(program),
            "input_shape": " ".join(map(str, input_shape(program))),
            "device": device.type,
        }
        with Threads(self.threads):  # their number becomes part of the code
            compile_package(program, path, facts)
        return self.load(path)

    def load(self, path: Path) -> TorchEngine:
        """Load a package that `deploy` wrote, for the device that it was compiled for.

        A library stays in memory until the process ends, so the package is loaded a few times at
        most, and the programs to time are these in turn.
        """
        from beats_search.runtimes._torch_aot import load_package  # noqa: PLC0415 - takes seconds

        device = find_device(self.device)
        graphs = self.cuda_graphs and device.type == "cuda"
        first = load_package(path, device, alone=graphs)
        facts = first.get_metadata()
        file = ProgramFile(
            path=path,
            input_shape=tuple(map(int, facts["input_shape"].split())),
            executed_as=facts["executed_as"],
            fresh=_in_turn(first, lambda: load_package(path, device, alone=graphs)),
        )
        compute = Compute(device=device, threads=self.threads, batch_size=self.batch_size, cuda_graphs=graphs)
        return TorchEngine(file, compute)


def _in_turn(first: Program, load: Callable[[], Program]) -> Callable[[], Program]:
    """Return what gives `first`, then new ones until there are enough, then these again in turn."""
    copies: list[Program] = []
    given = count()

    def following() -> Program:
        if len(copies) < _COPIES:
            copies.append(load() if copies else first)
        return copies[next(given) % len(copies)]

    return following
