"""Script: the lines that run an exported model, written beside it."""

from typing import Final

RUN_SCRIPT: Final = '''\
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
