"""Sparkline: a training curve in, the points of a small line out."""

import math
from collections.abc import Sequence

from beats_search.records.outcome import EpochScore

WIDTH = 96
HEIGHT = 24
_INSET = 2


def sparkline(curve: Sequence[EpochScore]) -> str:
    """Return the accuracies of a curve as points of an SVG polyline of 96 x 24, full height being 0…1.

    Scores that are not finite are left out; a curve of fewer than two is no line and gives an empty text.
    """
    scores = [score for score in curve if math.isfinite(score.accuracy)]
    if len(scores) < 2:  # noqa: PLR2004 - two points make a line
        return ""
    first, last = scores[0].epoch, scores[-1].epoch
    wide = (WIDTH - 2 * _INSET) / max(1, last - first)
    high = HEIGHT - 2 * _INSET
    return " ".join(
        f"{_INSET + wide * (score.epoch - first):.1f},{HEIGHT - _INSET - high * score.accuracy:.1f}" for score in scores
    )
