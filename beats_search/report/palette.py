"""Palette: what a mark means in, its colour in light and in dark out. After Okabe & Ito, for all eyes."""

from collections.abc import Mapping
from typing import Final

LIGHT: Final[Mapping[str, str]] = {
    "page": "#fbfbfa",
    "card": "#ffffff",
    "ink": "#1b1f24",
    "muted": "#5d6672",
    "line": "#e3e5e8",
    "front": "#0072b2",
    "reference": "#d55e00",
    "dominated": "#b4bac2",
    "good": "#007a5a",
}
"""Colours on a light page. No two are equal, because a figure is turned dark colour by colour."""

DARK: Final[Mapping[str, str]] = {
    "page": "#111418",
    "card": "#181c22",
    "ink": "#e8eaed",
    "muted": "#9aa4b1",
    "line": "#2c323a",
    "front": "#56b4e9",
    "reference": "#ff9248",
    "dominated": "#59626e",
    "good": "#3cc79b",
}
"""The same marks on a dark page."""

RUNS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#8a5fd0", "#7f7f7f")
"""One colour per run where several share a plot; readable on both pages."""


def darker() -> dict[str, str]:
    """Return the dark colour of each light one, and of each light one faded."""
    return {paint(LIGHT[mark]): paint(DARK[mark]) for mark in LIGHT for paint in (str, faded)}


def faded(color: str) -> str:
    """Return a colour of six hexadecimal digits, half transparent.

    >>> faded("#0072b2")
    'rgba(0,114,178,0.5)'
    """
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return f"rgba({red},{green},{blue},0.5)"
