"""Torch, eagerly: a model in, an exported program and an engine that runs it operator by operator out."""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, final

import torch
from torch import Tensor, nn

from beats_search.runtimes._call import check_call
from beats_search.runtimes._torch_engine import Compute, ProgramFile, TorchEngine, check_precision, find_device
from beats_search.runtimes._torch_program import executed_as, export_program, input_shape, on_device, quiet

__all__ = ["TorchEager"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TorchEager:
    """torch's own kernels, one operator after the other: what a model costs before it is deployed anywhere.

    The file is a program of `torch.export`, for any device. Models on integer grids compute in
    float here. `device` is cpu, cuda, cuda:<index>, or auto: cuda where there is one.
    """

    suffix: ClassVar[str] = ".pt2"

    threads: int = 1
    batch_size: int = field(default=1, metadata={"knob": False})
    device: str = "cpu"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"

    def __post_init__(self) -> None:
        """Refuse a call of nothing, or by nobody, and a precision that the device does not have."""
        check_call(threads=self.threads, batch_size=self.batch_size)
        check_precision(self.precision, self.device)

    @property
    def faithful(self) -> bool:
        """Whether a model stays as it is: in a lower precision it rounds otherwise."""
        return self.precision == "fp32"

    def deploy(self, model: nn.Module, example: Tensor, path: Path) -> TorchEngine:
        """Export the model to `path` and load it; ValueError when its device is not on this machine."""
        check_precision(self.precision, find_device(self.device).type)
        program = export_program(model, example, self.precision)
        program.example_inputs = None
        with quiet():
            torch.export.save(program, path)
        return self.load(path)

    def load(self, path: Path) -> TorchEngine:
        """Load a file that `deploy` wrote; each program to time is a copy with weights of its own."""
        device = find_device(self.device)
        with quiet():
            program = on_device(torch.export.load(path), device)
            module = program.module()
        file = ProgramFile(
            path=path,
            input_shape=input_shape(program),
            executed_as=executed_as(program),
            fresh=lambda: copy.deepcopy(module),
        )
        return TorchEngine(file, Compute(device=device, threads=self.threads, batch_size=self.batch_size))
