"""Machine: nothing in, the facts that a timing depends on out: processor, system, versions."""

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import torch

_LIBRARIES: Final = (
    "beats-search", "torch", "torchvision", "torch-pruning", "onnx", "onnxscript", "onnxruntime", "openvino",
    "optuna", "moocore", "numpy", "scikit-learn",
)  # fmt: skip
_INSTRUCTIONS: Final = (
    "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16", "asimddp", "i8mm", "bf16",
)  # fmt: skip


def describe_machine(cpu_info: Path = Path("/proc/cpuinfo")) -> Mapping[str, str]:
    """Return the machine and the versions as short texts by name."""
    facts = {
        "processor": _processor(cpu_info),
        "cores": str(os.cpu_count()),
        "instructions": ", ".join(_instructions(cpu_info)) or "unknown",
        "system": platform.platform(),
        "python": platform.python_version(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }
    return facts | {name: _version(name) for name in _LIBRARIES}


def _processor(cpu_info: Path) -> str:
    return _field(cpu_info, "model name") or platform.processor() or platform.machine()


def _instructions(cpu_info: Path) -> list[str]:
    flags = set((_field(cpu_info, "flags") or _field(cpu_info, "Features")).split())
    return [name for name in _INSTRUCTIONS if name in flags]


def _field(cpu_info: Path, name: str) -> str:
    if not cpu_info.exists():
        return ""
    lines = (line.partition(":") for line in cpu_info.read_text(encoding="utf-8").splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "")


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"
