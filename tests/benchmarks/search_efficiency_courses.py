"""Courses: a problem, a sampler and a seed in, how a study went out, evaluation by evaluation. Each is kept on disk."""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from beats_search.search.samplers.frontier import Frontier, FrontierSampler
from beats_search.search.storage import silence, without_experimental_warnings
from search_efficiency_ablations import ABLATIONS, Ablation
from search_efficiency_problems import Params, Problem, Values, problem

ENOUGH: Final = 0.99
"""A course on a table ends when it has reached this share of the true hypervolume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """After each evaluation: the share of the hypervolume, the distinct plans asked for, the proposal's seconds."""

    problem: str
    sampler: str
    seed: int
    limit: int
    shares: tuple[float, ...]
    queries: tuple[int, ...]
    seconds: tuple[float, ...]


Known = Callable[[dict[str, Any]], Any]


def _frontier(known: Known | None, on: Problem, seed: int, settings: Frontier) -> BaseSampler:
    return FrontierSampler(known, seed=seed, decides=on.decides, reference_point=on.reference, settings=settings)


def _without(ablation: Ablation) -> Callable[[Known, Problem, int], BaseSampler]:
    return lambda known, on, seed: _frontier(known if ablation.asks else None, on, seed, ablation.settings)


SAMPLERS: Final[Mapping[str, Callable[[Known, Problem, int], BaseSampler]]] = {
    "frontier": _without(Ablation()),
    "frontier_unlimited": _without(Ablation(settings=Frontier(queries=10**6, start_queries=4000, pool=4000))),
    **{name: _without(ablation) for name, ablation in ABLATIONS.items()},
    "tpe": lambda _, __, seed: TPESampler(seed=seed),
    "tpe_multivariate": lambda _, __, seed: TPESampler(seed=seed, multivariate=True),
    "gp": lambda _, __, seed: GPSampler(seed=seed),
    "nsga2": lambda _, __, seed: NSGAIISampler(seed=seed),
    "random": lambda _, __, seed: RandomSampler(seed=seed),
}
PEERS: Final = ("tpe", "tpe_multivariate", "gp", "nsga2", "random")
"""Optuna's own, as they come."""

LIMITS: Final = {"gp": 150}
"""Evaluations at most, where a proposal takes so long that more would take days."""


def kept_course(folder: Path, name: str, sampler: str, seed: int, limit: int) -> Course:
    """Return a course, from its file in a folder if it is there, else run and kept."""
    limit = min(limit, LIMITS.get(sampler, limit))
    path = folder / f"{name}-{sampler}-{limit}-{seed}.json"
    if path.is_file():
        return Course(**json.loads(path.read_text(encoding="utf-8")))
    with ABLATIONS.get(sampler, Ablation()).replaced():
        found = run_course(problem(name), sampler, seed, limit)
    write_aside(path, asdict(found))
    return found


def run_course(on: Problem, sampler: str, seed: int, limit: int) -> Course:
    """Run one study until it has reached enough of a table, or its limit."""
    silence()
    asked: set[tuple[tuple[str, Any], ...]] = set()

    def known(params: Params) -> Any:  # noqa: ANN401 - as the sampler asks for it
        asked.add(tuple(sorted(params.items())))
        return on.known(params)

    with without_experimental_warnings():
        study = optuna.create_study(directions=list(on.directions), sampler=SAMPLERS[sampler](known, on, seed))
    rng = np.random.default_rng([seed, 1])
    shares: list[float] = []
    queries: list[int] = []
    seconds: list[float] = []
    scores: list[Values] = []
    while len(shares) < limit and not (shares and shares[-1] >= ENOUGH):
        began = time.process_time()
        trial = study.ask(dict(on.space))
        seconds.append(time.process_time() - began)
        study.tell(trial, on.observe(trial.params, rng))
        scores.append(on.score(trial.params))
        shares.append(on.share(scores))
        queries.append(len(asked))
    return Course(
        problem=on.name,
        sampler=sampler,
        seed=seed,
        limit=limit,
        shares=tuple(shares),
        queries=tuple(queries),
        seconds=tuple(seconds),
    )


def write_aside(path: Path, data: object) -> None:
    """Write JSON to a file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}.new")
    aside.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    aside.replace(path)
