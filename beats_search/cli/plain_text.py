"""Plain text: a text of any origin in, one that a terminal only shows out."""

import re
from typing import Final

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""All control characters but the tab and the end of a line."""


def printable(text: str) -> str:
    """Return a text without control characters, with which a stranger's run could steer the terminal, and whole."""
    return _CONTROL.sub("", text).encode("utf-8", "replace").decode("utf-8")
