"""Script: a run in, the lines that run one of its exported models out, to be written beside it."""

from typing import Final

from beats_search.records.run import RunRecord


def run_script(run: RunRecord) -> str:
    """Return a Python script that classifies a CSV file where the run's data are a table, else a .npy file."""
    return _TABLE if run.columns else _ARRAY


_ARRAY: Final = '''\
"""Runs model.onnx: python run.py images.npy (float in [0, 1], shape as in card.json); without a file, on noise."""
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

here = Path(__file__).parent
card = json.loads((here / "card.json").read_text(encoding="utf-8"))
session = onnxruntime.InferenceSession(here / "model.onnx")
shape = session.get_inputs()[0].shape[1:]
images = np.load(sys.argv[1]) if len(sys.argv) > 1 else np.random.default_rng(0).random((1, *shape))
logits = session.run(["logits"], {"input": images.astype(np.float32)})[0]
print([card["classes"][row.argmax()] for row in logits])
'''

_TABLE: Final = '''\
"""Runs model.onnx: python run.py rows.csv (a header with the columns of card.json); without a file, on an empty row."""
import csv
import gzip
import json
import sys
import zlib
from pathlib import Path

import numpy as np
import onnxruntime

here = Path(__file__).parent
card = json.loads((here / "card.json").read_text(encoding="utf-8"))
session = onnxruntime.InferenceSession(here / "model.onnx")
columns, missing = card["input"]["columns"], {"", *card["input"]["missing_words"]}


def read(path):
    with open(path, "rb") as file:
        opened = gzip.open if file.read(2) == b"\\x1f\\x8b" else open
    separator = card["plan"]["dataset"].get("separator", ",")
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=separator, skipinitialspace=separator != " ", strict=True)
        rows = [(reader.line_num, [text.strip() for text in row]) for row in reader if row]
    while rows and rows[0][1] == [""]:  # blank lines before the header
        del rows[0]
    if not rows:
        raise ValueError("the file is empty; it needs a header and rows")
    names = [name or f"column {number}" for number, name in enumerate(rows[0][1], start=1)]
    for name in (column["name"] for column in columns):
        if names.count(name) != 1:
            hint = f"; is it separated by {separator!r}?" if len(names) == 1 else ""
            raise ValueError(f"the header needs the column {name!r} once, got {', '.join(map(repr, names))}{hint}")
    rows = [(line, row) for line, row in rows[1:] if row != [""] or len(names) == 1]
    for line, row in rows:
        if len(row) != len(names):
            raise ValueError(f"line {line} has {len(row)} fields, and the header has {len(names)}")
    if not rows:
        raise ValueError("there is no row below the header")
    return [[value(column, row[names.index(column["name"])], line) for column in columns] for line, row in rows]


def value(column, text, line=0):
    if column["kind"] == "category":
        return column["codes"].get(text, -1)  # unknown or missing
    if text in missing:
        return np.nan  # the model fills it
    try:
        number = float(text) if text.isascii() and "_" not in text else np.inf
    except ValueError:
        number = np.inf
    if not abs(number) <= float(np.finfo(np.float32).max):
        raise ValueError(f"line {line}: column {column['name']!r} needs a number like 1234.5, or nothing, got {text!r}")
    return number


try:
    rows = read(sys.argv[1]) if len(sys.argv) > 1 else [[value(column, "") for column in columns]]
except (OSError, EOFError, ValueError, csv.Error, zlib.error) as error:
    said = "the file is no text in UTF-8; save it as UTF-8" if isinstance(error, UnicodeDecodeError) else error
    print(f"{sys.argv[1]}: {said}", file=sys.stderr)
    sys.exit(2)
logits = session.run(["logits"], {"input": np.array(rows, dtype=np.float32)})[0]
print([card["classes"][row.argmax()] for row in logits])
'''
