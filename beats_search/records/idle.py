"""Idle settings: a technique in, the same without settings that have no effect beside its others out.

Plans that differ in nothing else are one plan: they would train and export the same model twice.
"""

from collections.abc import Callable, Mapping
from typing import Final

from beats_search.records.part import Part, Setting

Settings = Mapping[str, Setting]

_FULL_PRECISION: Final = 32


def effective(technique: Part) -> Part:
    """Return a technique of this package without its idle settings; one from outside as it is."""
    idle = _IDLE.get(technique.name)
    if idle is None:
        return technique
    settings = dict(technique.settings)
    without = idle(settings)
    return Part(name=technique.name, settings=tuple(item for item in settings.items() if item[0] not in without))


def _of_pruning(settings: Settings) -> frozenset[str]:
    """Return all but the ratio where nothing is removed, and the temperature where no teacher has one."""
    if settings.get("ratio") == 0:
        return frozenset(settings) - {"ratio"}
    return frozenset() if settings.get("distillation") else frozenset({"temperature"})


def _of_quantization(settings: Settings) -> frozenset[str]:
    """Return all but the bits where there are 32 of them, and the average where bits are not mixed."""
    bits = settings.get("bits", 8)
    if bits == _FULL_PRECISION:
        return frozenset(settings) - {"bits"}
    return frozenset() if bits == "mixed" else frozenset({"average_bits"})


_IDLE: Final[Mapping[str, Callable[[Settings], frozenset[str]]]] = {
    "channel_pruning": _of_pruning,
    "magnitude_pruning": _of_pruning,
    "quantization": _of_quantization,
}
