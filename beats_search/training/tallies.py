"""Tallies: the fires of one region in, its score for a stretch of training out."""

import math
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

    def begin_at(self, fires: int) -> None:
        """Go on from a count of fires, all of which have been scored."""
        self.fires = self._scored = fires
        self._agreement = self._waited = 0.0

    def note(self, rho: float, count: int) -> None:
        """Count a fire of a window of `count` micro-batches that agreed by ρ."""
        self.fires += 1
        self._agreement += rho
        self._waited += count

    def score(self, name: str) -> RegionScore:
        """Return what happened since the last score."""
        fires = self.fires - self._scored
        share = 1 / fires if fires else math.nan
        score = RegionScore(name=name, fires=fires, agreement=share * self._agreement, waited=share * self._waited)
        self.begin_at(self.fires)
        return score
