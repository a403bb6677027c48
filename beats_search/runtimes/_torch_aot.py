"""Ahead of time: an exported program in, a package of machine code and weights out, and a package in, a program out."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch._inductor import aoti_compile_and_package, aoti_load_package
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler
from torch.export import ExportedProgram
from torch.export.pt2_archive._package import AOTICompiledModel

from beats_search.records.errors import TrialError
from beats_search.runtimes._torch_program import quiet


def check_compiler() -> None:
    """Raise TrialError when this machine has no C++ compiler."""
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        advice = "install one (apt install g++), name one in the variable CXX, or take the runtime torch_eager"
        raise TrialError(f"runtime torch_compile needs a C++ compiler, and there is none: {advice}") from error


def compile_package(program: ExportedProgram, path: Path, facts: Mapping[str, str]) -> None:
    """Compile a program, which has example inputs, into a package at `path` that tells `facts`."""
    settings = {"aot_inductor.metadata": dict(facts)}
    with quiet(), torch.no_grad():
        aoti_compile_and_package(program, package_path=str(path), inductor_configs=settings)


def load_package(path: Path, device: torch.device, *, alone: bool) -> AOTICompiledModel:
    """Load a package once more; `alone` drops the locks between threads, with which no CUDA graph can be captured."""
    index = -1 if device.index is None else device.index  # type: ignore[redundant-expr]  # it is None for "cuda"
    with quiet():
        package: AOTICompiledModel = aoti_load_package(str(path), run_single_threaded=alone, device_index=index)
    return package
