"""Plugins: a shelf and a name in, the settings class of that part out. The folder is the registry.

A shelf is a package whose every module is one part, or a module whose every public class is one.
A part is a frozen dataclass: its fields are its settings, its one act is a method that the shelf's
users call. Parts from outside come through the entry points `beats_search.<shelf>`, or, for data
sets and models, as `module:name` of a plain function.
"""

import difflib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import MISSING, dataclass, field, make_dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from beats_search.records.errors import MissingExtraError
from beats_search.records.part import Part

SHELVES: Final[Mapping[str, str]] = {
    "datasets": "beats_search.datasets",
    "models": "beats_search.models",
    "optimizers": "beats_search.training.optimizers",
    "schedules": "beats_search.training.schedules",
    "compression": "beats_search.compression",
    "runtimes": "beats_search.runtimes",
    "samplers": "beats_search.search.samplers",
}
"""Shelf names and where their parts are."""

EXTRAS: Final = frozenset({"openvino"})
"""Extras of this package that bring what a part needs, each named after its library."""

_ACTS: Final[Mapping[str, tuple[str, int]]] = {"datasets": ("load", 0), "models": ("build", 2)}
"""Shelves that take `module:name`: the method, and how many leading arguments the function gets."""


_ANNOUNCE: Final[ContextVar[Callable[[str], None]]] = ContextVar("announce", default=lambda _: None)


class UnknownPartError(LookupError):
    """There is no such part; the text says which there are and which was probably meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartLine:
    """A part on its shelf, in one line."""

    shelf: str
    name: str
    summary: str


def names(shelf: str) -> tuple[str, ...]:
    """Return the names of all parts on a shelf, sorted; a package shelf is listed without imports."""
    return tuple(sorted({*_own_names(shelf), *_entry_points(shelf)}))


def settings_class(shelf: str, name: str) -> type[Any]:
    """Return the frozen dataclass of a part.

    Raises UnknownPartError when there is none of that name, MissingExtraError when the part needs a
    library that is not installed.
    """
    try:
        if ":" in name:
            return _from_function(shelf, name)
        if name in _own_names(shelf):
            return _own_class(shelf, name)
        if name in _entry_points(shelf):
            return _entry_points(shelf)[name].load()  # type: ignore[no-any-return]  # an entry point is untyped
    except ModuleNotFoundError as error:
        wanted = f"'beats-search[{error.name}]'" if error.name in EXTRAS else error.name
        raise MissingExtraError(f"{singular(shelf)} {name!r} needs {error.name!r}: pip install {wanted}") from error
    raise UnknownPartError(_unknown(shelf, name))


def make(shelf: str, part: Part) -> Any:  # noqa: ANN401 - each shelf has a protocol of its own
    """Return the part itself: its dataclass filled with the settings."""
    return settings_class(shelf, part.name)(**dict(part.settings))


def summary(shelf: str, name: str) -> str:
    """Return the first line of a part's docstring."""
    return (inspect.getdoc(settings_class(shelf, name)) or "").partition("\n")[0]


def all_parts() -> tuple[PartLine, ...]:
    """Return every part of every shelf; of one whose library is not installed, how to install it."""
    return tuple(_line(shelf, name) for shelf in SHELVES for name in names(shelf))


@contextmanager
def announcing(tell: Callable[[str], None]) -> Iterator[None]:
    """Let `tell` have the name and the file of each module from outside just before it is imported."""
    token = _ANNOUNCE.set(tell)
    try:
        yield
    finally:
        _ANNOUNCE.reset(token)


def search_first_in(folder: Path) -> None:
    """Make `module:name` parts importable from `folder`, before anything else of that name."""
    entry = str(folder.resolve())
    if entry not in sys.path:
        sys.path.insert(0, entry)


def did_you_mean(word: str, allowed: tuple[str, ...]) -> str:
    """Return `; did you mean 'x'? (all, that, is, allowed)`, the question only where one is near."""
    near = difflib.get_close_matches(word, allowed, n=1, cutoff=0.6)
    question = f"; did you mean {near[0]!r}?" if near else "; allowed:"
    return f"{question} ({', '.join(allowed)})"


def singular(shelf: str) -> str:
    """Return the word for one part of a shelf, as users read it."""
    return {"datasets": "data set", "compression": "technique"}.get(shelf, shelf.removesuffix("s"))


def _line(shelf: str, name: str) -> PartLine:
    try:
        text = summary(shelf, name)
    except MissingExtraError as error:
        text = str(error)
    return PartLine(shelf=shelf, name=name, summary=text)


def _unknown(shelf: str, name: str) -> str:
    return f"unknown {singular(shelf)} {name!r}{did_you_mean(name, names(shelf))}"


def _own_names(shelf: str) -> tuple[str, ...]:
    spec = importlib.util.find_spec(SHELVES[shelf])
    if spec is None:  # a shelf that is not there is a broken installation
        raise ModuleNotFoundError(SHELVES[shelf])
    if spec.submodule_search_locations is None:
        return tuple(_module_parts(shelf))
    modules = pkgutil.iter_modules(list(spec.submodule_search_locations))
    return tuple(module.name for module in modules if not module.name.startswith("_"))


def _own_class(shelf: str, name: str) -> type[Any]:
    spec = importlib.util.find_spec(SHELVES[shelf])
    if spec is not None and spec.submodule_search_locations is None:
        return _module_parts(shelf)[name]
    module = importlib.import_module(f"{SHELVES[shelf]}.{name}")
    (public,) = module.__all__
    found: type[Any] = getattr(module, public)
    return found


def _module_parts(shelf: str) -> dict[str, type[Any]]:
    module = importlib.import_module(SHELVES[shelf])
    classes = {public: getattr(module, public) for public in module.__all__}
    return {_snake(name): value for name, value in classes.items() if inspect.isclass(value)}


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _entry_points(shelf: str) -> dict[str, Any]:
    return {point.name: point for point in entry_points(group=f"beats_search.{shelf}")}


def _from_function(shelf: str, path: str) -> type[Any]:
    if shelf not in _ACTS:
        raise UnknownPartError(f"a {singular(shelf)} cannot be written as module:name, got {path!r}")
    module_name, _, function_name = path.partition(":")
    if not module_name or not function_name:
        raise UnknownPartError(f"{path!r} needs a module and a function, like my_code:net")
    module = _import_outside(module_name, path)
    if not callable(getattr(module, function_name, None)):
        allowed = tuple(sorted(name for name, value in vars(module).items() if callable(value) and name[0] != "_"))
        raise UnknownPartError(f"{module_name} has no function {function_name!r}{did_you_mean(function_name, allowed)}")
    return _adapter(shelf, path, getattr(module, function_name))


def _import_outside(module_name: str, path: str) -> ModuleType:
    try:
        if module_name not in sys.modules and (spec := importlib.util.find_spec(module_name)):
            _ANNOUNCE.get()(f"{module_name} ({spec.origin})")
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name.partition(".")[0]:
            raise
        where = "beside the space file or on Python's path"
        raise UnknownPartError(f"{path!r} needs a module {module_name!r} {where}; there is none") from error


def _adapter(shelf: str, path: str, function: Callable[..., Any]) -> type[Any]:
    """Make a settings class whose fields are the function's parameters and whose act calls it."""
    act, leading = _ACTS[shelf]
    parameters = list(inspect.signature(function, eval_str=True).parameters.values())[leading:]
    settings = [item for item in parameters if item.kind not in {item.VAR_KEYWORD, item.VAR_POSITIONAL}]

    def call(self: object, *arguments: object) -> object:
        chosen = {setting.name: getattr(self, setting.name) for setting in settings}
        paths = {setting.name for setting in settings if _is_path(setting)}
        return function(
            *arguments, **{name: _as_path(value) if name in paths else value for name, value in chosen.items()}
        )

    columns = [
        (item.name, _hint(item), field(default=_default(item), metadata={"path": _is_path(item)})) for item in settings
    ]
    return make_dataclass(
        re.sub(r"\W", "_", path), columns, frozen=True, kw_only=True, namespace={act: call, "__doc__": function.__doc__}
    )


def _hint(parameter: inspect.Parameter) -> Any:  # noqa: ANN401 - a type hint
    if _is_path(parameter):
        return str if parameter.annotation is Path else str | None
    return Any if parameter.annotation is parameter.empty else parameter.annotation


def _is_path(parameter: inspect.Parameter) -> bool:
    return parameter.annotation in {Path, Path | None} if parameter.annotation.__hash__ else False


def _as_path(value: str | None) -> Path | None:
    return None if value is None else Path(value)


def _default(parameter: inspect.Parameter) -> Any:  # noqa: ANN401 - whatever the user's function defaults to
    if parameter.default is parameter.empty:
        return MISSING
    if isinstance(parameter.default, list):
        return tuple(parameter.default)
    return str(parameter.default) if isinstance(parameter.default, Path) else parameter.default
