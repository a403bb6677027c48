"""A part: a name on a shelf with its settings, as plain data."""

from dataclasses import dataclass
from operator import itemgetter
from typing import Final

_NAME: Final = itemgetter(0)

Scalar = bool | int | float | str | None
Setting = Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Shelf:
    """Marks a `Part` field of a plan: which shelf its name is looked up on."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part by name with its settings, sorted: `resnet` with `width=32`."""

    name: str
    settings: tuple[tuple[str, Setting], ...] = ()

    def __post_init__(self) -> None:
        """Sort the settings, so that equal parts compare equal."""
        object.__setattr__(self, "settings", tuple(sorted(self.settings, key=_NAME)))

    def __getitem__(self, setting: str) -> Setting:
        """Return the value of one setting; KeyError when the part has none of that name."""
        return dict(self.settings)[setting]
