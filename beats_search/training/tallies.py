"""Tallies: the fires of one region in, its score for a stretch of training out."""

import math
from collections.abc import Sequence
from typing import final

from beats_search.records.outcome import RegionScore


@final
class Tally:
    """Counts the fires of one region, and what those since the last score were made of."""

    def __init__(self) -> None:
        """Begin at none."""
        self.fires = 0
        self._scored = 0
        self._agreement = self._waited = 0.0

    def state(self) -> list[float]:
        """Return all that is counted."""
        return [self.fires, self._scored, self._agreement, self._waited]

    def load(self, state: Sequence[float]) -> None:
        """Go on from the counts of a state."""
        fires, scored, self._agreement, self._waited = state
        self.fires, self._scored = int(fires), int(scored)

    def note(self, rho: float, count: int) -> None:
        """Count a fire of a window of `count` micro-batches that agreed by ρ."""
        self.fires += 1
        self._agreement += rho
        self._waited += count

    def begin(self) -> None:
        """Begin a stretch of training: what was counted so far has been scored."""
        self._scored = self.fires
        self._agreement = self._waited = 0.0

    def score(self, name: str) -> RegionScore:
        """Return what happened in this stretch so far."""
        fires = self.fires - self._scored
        share = 1 / fires if fires else math.nan
        return RegionScore(name=name, fires=fires, agreement=share * self._agreement, waited=share * self._waited)
