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
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

here = Path(__file__).parent
card = json.loads((here / "card.json").read_text(encoding="utf-8"))
session = onnxruntime.InferenceSession(here / "model.onnx")


def value(column, text):
    if column["kind"] == "category":
        return column["codes"].get(text, -1)  # unknown or missing
    try:
        return float(text)
    except ValueError:
        return float("nan")  # missing: the model fills it


columns, rows = card["input"]["columns"], [{column["name"]: "" for column in card["input"]["columns"]}]
if len(sys.argv) > 1:
    with open(sys.argv[1], encoding="utf-8-sig", newline="") as file:
        separator = card["plan"]["dataset"].get("separator", ",")
        rows = list(csv.DictReader(file, delimiter=separator, skipinitialspace=True))
inputs = np.array([[value(column, row[column["name"]]) for column in columns] for row in rows], dtype=np.float32)
logits = session.run(["logits"], {"input": inputs})[0]
print([card["classes"][row.argmax()] for row in logits])
'''
