"""Spaces: a path in, a search space out; and all that a space may name."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from beats_search import plugins
from beats_search.records.errors import CommandError

if TYPE_CHECKING:
    from beats_search.space.knobs import SearchSpace


def read(path: Path, changes: Sequence[str] = ()) -> "SearchSpace":
    """Read a space file; CommandError when there is none, SpaceError with all its mistakes."""
    from beats_search.space.schema import read_space

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CommandError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise CommandError(f"{path} is a folder; a space is a YAML file in it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} cannot be read as text: {error}") from error
    return read_space(text, file=path, changes=changes)


def parts() -> tuple[plugins.PartLine, ...]:
    """Return every part of every shelf with one line on what it is."""
    return plugins.all_parts()


def schema() -> str:
    """Return the JSON Schema of a space as text."""
    from beats_search.space.schema import json_schema

    return json.dumps(json_schema(), indent=2)
