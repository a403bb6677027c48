"""How small and fast can a network get before it gets worse? A search over training and compression.

`run` searches a space and leaves the front; data sets of your own are a `DataBundle` of three `Split`s.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from beats_search.app import RunRequest, RunResult, run
    from beats_search.tensors.data import DataBundle, Split, standardize_by

__all__ = ["DataBundle", "RunRequest", "RunResult", "Split", "run", "standardize_by"]

_HOMES: Final = {
    "DataBundle": "beats_search.tensors.data",
    "RunRequest": "beats_search.app",
    "RunResult": "beats_search.app",
    "Split": "beats_search.tensors.data",
    "run": "beats_search.app",
    "standardize_by": "beats_search.tensors.data",
}


def __getattr__(name: str) -> object:
    """Load a public name from its home when it is first used, so that importing the package is quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'beats_search' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
