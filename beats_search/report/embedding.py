"""Embedding: data and scripts in, text that is safe inside a page out."""

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

_UNSAFE: Final = str.maketrans({char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"})


def script_json(document: str) -> Markup:
    r"""Return a JSON document that cannot close the script element it stands in, nor open another.

    >>> script_json('{"name": "</script>"}')
    Markup('{"name": "\\u003c/script\\u003e"}')
    """
    return Markup(document.translate(_UNSAFE))  # noqa: S704 - nothing that HTML reads is left


def to_script_json(value: object) -> Markup:
    """Return plain data as JSON for a script element; ValueError for a number that is not finite."""
    return script_json(json.dumps(value, allow_nan=False, separators=(",", ":")))


def content_security_policy(scripts: Sequence[str]) -> str:
    """Return a policy that runs exactly these inline scripts and loads nothing from anywhere.

    Styles may be inline, because plotly sets them; images may be data, because plotly saves a plot so.
    """
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    images = "img-src data: blob:"
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; {images}; form-action 'none'"


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
