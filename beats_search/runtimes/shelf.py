"""Shelf: templates by name in, for the other processes of a run out: a network is exported by one of them alone.

Whoever takes a template from there compares what it computes with the network at hand.
"""

import base64
import json
import os
from pathlib import Path
from typing import Final

import onnx
from onnx.reference import ReferenceEvaluator

from beats_search.runtimes._templates import Template

_FOLDER: Final[list[Path]] = []


def share_templates(folder: Path | None) -> None:
    """Keep the templates that this process makes in a folder from here on, and look there first; None ends that."""
    _FOLDER[:] = [] if folder is None else [folder]


def put(name: str | None, template: Template) -> None:
    """Keep a template that fits other networks too; where that cannot be, others make it anew."""
    if not _FOLDER or name is None or not (template.reusable and template.sizeless):
        return
    told = {
        "model": _text(template.model),
        "derivation": _text(template.derivation.proto_),
        "held": sorted(template.held),
    }
    path = _FOLDER[0] / f"{name}.json"
    aside = path.with_suffix(f".{os.getpid()}")
    try:
        _FOLDER[0].mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(told), encoding="ascii")
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)


def taken(name: str | None) -> Template | None:
    """Return the template of that name, None where there is none."""
    if not _FOLDER or name is None:
        return None
    try:
        told = json.loads((_FOLDER[0] / f"{name}.json").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return Template(
        model=_model(told["model"]),
        held=frozenset(told["held"]),
        derivation=ReferenceEvaluator(_model(told["derivation"])),
        reusable=True,
        sizeless=True,
    )


def _text(model: onnx.ModelProto) -> str:
    return base64.b64encode(model.SerializeToString(deterministic=True)).decode("ascii")


def _model(text: str) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.ParseFromString(base64.b64decode(text))
    return model
