"""Stopwatch: switches between training and validation in, the seconds that each took out."""

from collections.abc import Callable
from time import perf_counter
from typing import Literal, final

Activity = Literal["training", "validation"]


@final
class Stopwatch:
    """Runs from when it is made, for training; time is charged to the activity that was switched to last."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self.training = 0.0
        self.validation = 0.0
        self._clock = clock
        self._activity: Activity = "training"
        self._since = clock()

    def switch(self, activity: Activity) -> None:
        """Charge the time since the last switch, and go on with `activity`."""
        now = self._clock()
        if self._activity == "training":
            self.training += now - self._since
        else:
            self.validation += now - self._since
        self._activity, self._since = activity, now
