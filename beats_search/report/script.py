"""Script: a run in, the lines that run one of its exported models out, to be written beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from beats_search.records.run import RunRecord


def run_script(run: RunRecord, runtime: str = "onnxruntime") -> str:
    """Return a Python script that classifies a CSV file where the run's data are a table, else a .npy file.

    It needs the runtime that the model was measured in, by its name; another one's model is taken for an ONNX file.
    """
    engine = _ENGINES.get(runtime, _ENGINES["onnxruntime"])
    script = _TABLE if run.columns else _ARRAY
    for word, code in engine.lines.items():
        script = script.replace(word, code)
    return script


@dataclass(frozen=True, slots=True, kw_only=True)
class _Engine:
    """How a runtime loads the file and turns `INPUTS`, a float array, into an array of logits."""

    library: str
    file: str
    load: str
    call: str

    @property
    def lines(self) -> Mapping[str, str]:
        return {"LIBRARY": self.library, "FILE": self.file, "LOAD": self.load, "CALL": self.call}


_ENGINES: Final[Mapping[str, _Engine]] = {
    "onnxruntime": _Engine(
        library="onnxruntime",
        file="model.onnx",
        load='onnxruntime.InferenceSession(here / "model.onnx")',
        call='model.run(["logits"], {"input": inputs})[0]',
    ),
    "openvino": _Engine(
        library="openvino",
        file="model.onnx",
        load='openvino.Core().compile_model(here / "model.onnx", "CPU")',
        call="model(inputs)[0]",
    ),
    "torch_eager": _Engine(
        library="torch",
        file="model.pt2",
        load='torch.export.load(here / "model.pt2").module()',
        call="model(torch.from_numpy(inputs)).numpy(force=True)",
    ),
    "torch_compile": _Engine(
        library="torch",
        file="model.pt2",
        load='torch._inductor.aoti_load_package(str(here / "model.pt2"))',
        call='model(torch.from_numpy(inputs).to(model.get_metadata()["device"])).numpy(force=True)',
    ),
}

_ARRAY: Final = '''\
"""Runs FILE: python run.py images.npy (float in [0, 1], shape as in card.json); without a file, on noise."""
import json
import sys
from pathlib import Path

import numpy as np
import LIBRARY

here = Path(__file__).parent
card = json.loads((here / "card.json").read_text(encoding="utf-8"))
model = LOAD
shape = card["input"]["shape"][1:]
images = np.load(sys.argv[1]) if len(sys.argv) > 1 else np.random.default_rng(0).random((1, *shape))
inputs = images.astype(np.float32)
logits = CALL
print([card["classes"][row.argmax()] for row in logits])
'''

_TABLE: Final = '''\
"""Runs FILE: python run.py rows.csv (a header with the columns of card.json); without a file, on an empty row."""
import csv
import gzip
import json
import sys
import zlib
from pathlib import Path

import numpy as np
import LIBRARY

here = Path(__file__).parent
card = json.loads((here / "card.json").read_text(encoding="utf-8"))
model = LOAD
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
inputs = np.array(rows, dtype=np.float32)
logits = CALL
print([card["classes"][row.argmax()] for row in logits])
'''
