"""How to search: the budget and the sampler. Not part of a trial, so it may change between sittings."""

from dataclasses import dataclass, field
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from beats_search.records.part import Part, Shelf

STORAGE_PASSWORD: Final = "BEATS_SEARCH_STORAGE_PASSWORD"  # noqa: S105 - the name of a variable
"""The environment variable that holds the database's password, which has no place in a space."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourcesPlan:
    """What each trial takes of a cluster: processors and GPUs, in fractions where trials share them."""

    cpu: float = 1.0
    gpu: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a trial that takes nothing, and parts of several GPUs, which Ray cannot deal."""
        if not self.cpu > 0:
            raise ValueError(f"search.resources.cpu needs to be above 0, got {self.cpu}")
        if self.gpu < 0 or (self.gpu > 1 and self.gpu != int(self.gpu)):
            raise ValueError(f"search.resources.gpu needs to be from 0 to 1, or a whole number, got {self.gpu}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RayPlan:
    """Which Ray cluster runs trials: `auto` or host:port of one that is there; empty starts one on this machine."""

    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """The budget and the sampler. The search ends at whichever budget is spent first.

    `trials` counts trials that ran, the reference among them; `timeout` counts seconds of search,
    over all sittings. A trial that has begun is finished.

    `probe` lets what is known before training (latency, size, multiply-accumulates) decide whether a plan
    is trained at all; `stop_early` ends trials that will hardly reach the front; `reuse` keeps what was trained
    for trials that begin alike; `confirm` trains the front anew so many times, with other seeds.

    `workers` processes try plans at the same time, as many as there is room for where it is `auto`: on this
    machine with `backend: local`, on a cluster with `ray`, where each trial takes `resources`.
    A trial whose process dies is tried again up to `retries` times; one that takes longer than
    `trial_timeout` seconds has failed.

    `storage` is the address of a database in which several machines work on one study, `postgresql://user@host/name`;
    a file in the run's folder where it is empty (`local` only).
    """

    trials: int = 40
    timeout: float | None = field(default=None, metadata={"duration": True})
    sampler: Annotated[Part, Shelf("samplers")] = Part(name="frontier")
    probe: bool = True
    stop_early: bool = True
    reuse: bool = True
    confirm: int = 0
    backend: Literal["local", "ray"] = "local"
    workers: int | Literal["auto"] = "auto"
    resources: ResourcesPlan = ResourcesPlan()
    ray: RayPlan = RayPlan()
    retries: int = 1
    storage: str = ""
    trial_timeout: float | None = field(default=None, metadata={"duration": True})

    def __post_init__(self) -> None:
        """Refuse a budget that holds nothing."""
        if self.trials < 1:
            raise ValueError(f"search.trials needs to be at least 1, got {self.trials}")
        if self.confirm < 0:
            raise ValueError(f"search.confirm needs to be at least 0, got {self.confirm}")
        if self.workers != "auto" and self.workers < 1:
            raise ValueError(f"search.workers needs to be at least 1 or auto, got {self.workers}")
        if self.storage and self.backend != "local":
            raise ValueError(f"search.storage needs backend: local, got {self.backend}: a cluster is one search")
        if self.storage:
            _check_address(self.storage)
        if self.retries < 0:
            raise ValueError(f"search.retries needs to be at least 0, got {self.retries}")
        for name, seconds in (("timeout", self.timeout), ("trial_timeout", self.trial_timeout)):
            if seconds is not None and not seconds > 0:
                raise ValueError(f"search.{name} needs to be above 0 seconds, got {seconds}")


def _check_address(text: str) -> None:
    """Refuse what is no address of a database that can hold a study."""
    example = "such as postgresql://user@host/database"
    url = urlsplit(text)
    kind = url.scheme.partition("+")[0]
    if kind not in {"postgresql", "mysql", "sqlite"}:
        raise ValueError(f"search.storage needs a database of postgresql, mysql or sqlite, {example}, got {text!r}")
    if url.password is not None:
        raise ValueError(f"search.storage holds a password, and reports show it; put that into {STORAGE_PASSWORD}")
    if len(url.path) < (3 if kind == "sqlite" else 2):
        raise ValueError(f"search.storage needs to name a database, {example}, got {text!r}")
