"""Calls of the command line on a tiny space, shared by the tests of it."""

from pathlib import Path

from typer.testing import CliRunner, Result

from beats_search.cli.commands import app

SPACE = """\
name: tiny
dataset: {name: "toys:stripes"}
model: {name: "toys:net", width: {choice: [8, 16]}}
training:
  epochs: 2
  batch_size: 16
  lr: 0.01
compression:
  - {name: quantization, bits: {choice: [32, 8]}}
search: {trials: 4, sampler: grid, probe: false}
"""


def call(*arguments: object) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def write(folder: Path, text: str = SPACE) -> Path:
    """Write a space into a folder and return its path."""
    path = folder / "space.yaml"
    path.write_text(text, encoding="utf-8")
    return path
