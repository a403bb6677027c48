"""Devices: the name that a plan gives in, a device of this machine out."""

from collections.abc import Mapping

import torch
from threadpoolctl import threadpool_limits


def find_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is the accelerator of this machine, else the CPU.

    Raises ValueError for a device that this machine does not have.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        return accelerator or torch.device("cpu")
    count = torch.accelerator.device_count() if accelerator else 0
    numbered = (f"{accelerator.type}:{index}" for index in range(count)) if accelerator else ()
    present = ("cpu", *((accelerator.type,) if accelerator else ()), *numbered)
    if name not in present:
        raise ValueError(f"training.device needs to be auto or one that is here ({', '.join(present)}), got {name!r}")
    return torch.device(name)


def cuda_devices(name: str, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return all GPUs, as CUDA_VISIBLE_DEVICES names them; none where the device of that name is no CUDA device."""
    if find_device(name).type != "cuda":
        return ()
    named = environment.get("CUDA_VISIBLE_DEVICES")
    return tuple(named.split(",")) if named else tuple(str(index) for index in range(torch.cuda.device_count()))


def use_threads(count: str) -> None:
    """Compute on so many threads from here on, as OMP_NUM_THREADS names them; on as many as before unless it does.

    That variable counts for nothing any more once the libraries are there, as in a process that was forked. Of a
    list, the first number is that of threads that do not begin further ones.
    """
    first = count.partition(",")[0].strip()
    if first.isdecimal() and int(first) > 0:
        torch.set_num_threads(int(first))
        threadpool_limits(limits=int(first), user_api="blas")
