"""How to search: the budget and the sampler. Not part of a trial, so it may change between sittings."""

from dataclasses import dataclass, field
from typing import Annotated

from beats_search.records.part import Part, Shelf


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """The budget and the sampler. The search ends at whichever budget is spent first.

    `trials` counts trials that ran, the reference among them; `timeout` counts seconds of search,
    over all sittings. A trial that has begun is finished.

    `probe` lets what is known before training (latency, size, multiply-accumulates) decide whether a plan
    is trained at all; `stop_early` ends trials that will hardly reach the front; `reuse` keeps what was trained
    for trials that begin alike; `confirm` trains the front anew so many times, with other seeds.
    """

    trials: int = 40
    timeout: float | None = field(default=None, metadata={"duration": True})
    sampler: Annotated[Part, Shelf("samplers")] = Part(name="frontier")
    probe: bool = True
    stop_early: bool = True
    reuse: bool = True
    confirm: int = 0

    def __post_init__(self) -> None:
        """Refuse a budget that holds nothing."""
        if self.trials < 1:
            raise ValueError(f"search.trials needs to be at least 1, got {self.trials}")
        if self.confirm < 0:
            raise ValueError(f"search.confirm needs to be at least 0, got {self.confirm}")
        if self.timeout is not None and not self.timeout > 0:
            raise ValueError(f"search.timeout needs to be above 0 seconds, got {self.timeout}")
