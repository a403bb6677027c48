"""Stepping: an optimizer whose parameters begin at different times in, the same arithmetic in all its forms."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch.optim import SGD, Optimizer


def step(optimizer: Optimizer) -> None:
    """Step an optimizer on the parameters that have a gradient, whichever of them had one before.

    torch's fused SGD fails where some parameters of a group have a momentum and others get their
    first gradient; such a group takes that one step unfused, which computes the same.
    """
    with _unfused([group for group in optimizer.param_groups if _is_mixed(optimizer, group)]):
        optimizer.step()


def _is_mixed(optimizer: Optimizer, group: Mapping[str, Any]) -> bool:
    if not (isinstance(optimizer, SGD) and group["fused"] and group["momentum"]):
        return False
    stepped = [parameter for parameter in group["params"] if parameter.grad is not None]
    begun = sum(optimizer.state[parameter].get("momentum_buffer") is not None for parameter in stepped)
    return 0 < begun < len(stepped)


@contextmanager
def _unfused(groups: list[dict[str, Any]]) -> Iterator[None]:
    for group in groups:
        group["fused"] = False
    try:
        yield
    finally:
        for group in groups:
            group["fused"] = True
