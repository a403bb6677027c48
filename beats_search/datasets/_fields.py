"""Fields: a CSV file in, its fields as texts under the names of its header out."""

import csv
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TextIO

import pandas as pd
from pandas import DataFrame

from beats_search.plugins import did_you_mean

_GZIP: Final = b"\x1f\x8b"
_PACKED: Final = (b"PK\x03\x04", b"PK\x05\x06", b"BZh", b"\xfd7zXZ", b"(\xb5/\xfd")  # zip and xlsx, bz2, xz, zst
_BLANK: Final[tuple[list[str], ...]] = ([], [""])


def read_fields(file: Path, separator: str) -> DataFrame:
    """Return all fields as texts without blanks around them, each row under the line of the file it begins in.

    A file that is packed with gzip is read as well. Raises FileNotFoundError, or ValueError for what
    is no table: rows as long as the header, with different column names.
    """
    try:
        with _open(file) as lines:
            rows = _rows(lines, separator, file)
            _, header = next(rows, (0, []))
            names = [name or f"column {number}" for number, name in enumerate(header, start=1)]
            _check_header(names, file)
            numbered = dict(_as_long_as(names, rows, file))
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8 ({error.reason}); save it as UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{file} is a broken gzip file ({error}); pack it again, or unpack it") from error
    except PermissionError as error:
        raise ValueError(f"{file} may not be read: {error.strerror}") from error
    return pd.DataFrame(list(numbered.values()), columns=names, index=list(numbered), dtype=str)


def check_names(table: DataFrame, wanted: tuple[str, ...], file: Path) -> None:
    """Raise ValueError unless the table has all the columns that a space names."""
    names = tuple(table.columns)
    for name in wanted:
        if name not in names:
            alike = next((other for other in names if other.casefold() == name.casefold()), name)
            raise ValueError(f"{file} has no column {name!r}{did_you_mean(alike, names)}{_suspicion(names)}")


def _open(file: Path) -> TextIO:
    if file.is_dir():
        raise ValueError(f"{file} is a folder; path needs to name a CSV file in it")
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    with file.open("rb") as begun:
        first = begun.read(6)
    if first.startswith(_PACKED):
        raise ValueError(f"{file} is an archive or a spreadsheet; path needs a CSV file, as it is or packed with gzip")
    if first.startswith(_GZIP):
        return gzip.open(file, "rt", encoding="utf-8-sig", newline="")
    if file.suffix == ".gz":
        raise ValueError(f"{file} is no gzip file, whatever its name says; pack it again, or rename it")
    return file.open(encoding="utf-8-sig", newline="")


def _rows(lines: TextIO, separator: str, file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line that a row begins in, from 1, and its fields; blank lines are no rows."""
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=separator != " ", strict=True)
    line = 1
    try:
        for row in reader:
            fields = [text.strip() for text in row]
            if fields not in _BLANK:
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        rule = "a text in quotes needs to end where its field ends, with a quote"
        raise ValueError(f"{file} is no table: {rule}, in the row that begins in line {line} ({error})") from error


def _check_header(names: list[str], file: Path) -> None:
    if not names:
        raise ValueError(f"{file} is empty; it needs a header with the names of the columns, and rows")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{file}: columns need different names, got {', '.join(map(repr, twice))} more than once")


def _as_long_as(names: list[str], rows: Iterator[tuple[int, list[str]]], file: Path) -> Iterator[tuple[int, list[str]]]:
    for line, fields in rows:
        if len(fields) != len(names):
            rule = f"the header has {len(names)} fields, and the row in line {line} has {len(fields)}"
            advice = "a field that holds the separator needs quotes around it, and a field without value its separator"
            raise ValueError(f"{file} is no table: {rule}; {advice}")
        yield line, fields


def _suspicion(names: tuple[str, ...]) -> str:
    """Return what may be wrong with a file that misses a column."""
    if len(names) == 1:
        return "; is the separator right?"
    numbers = int(pd.to_numeric(pd.Series(names), errors="coerce").notna().sum())
    return "; does the file lack a header? Its first line is taken for the names" if 2 * numbers >= len(names) else ""
