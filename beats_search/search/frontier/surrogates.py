"""Surrogates: a history in, what is believed of each objective, and of success, at any plan out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from scipy.special import ndtri

from beats_search.search.clipping import Clip, clip_at
from beats_search.search.frontier.codes import Codes, Features, Indices
from beats_search.search.frontier.gaussian_process import Belief, Process, fit
from beats_search.search.frontier.history import Ended, History
from beats_search.search.improvement import Array, log_probability_below, mean_below

_MOST: Final = 500
_SHARES: Final = (0.0, 0.5)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Learned:
    """What is believed of an objective, in values that a clip has drawn up."""

    process: Process
    clip: Clip

    def at(self, features: Features) -> Belief:
        """Return what is believed of the drawn values of plans."""
        return self.process.at(features)


def recent(count: int, most: int = _MOST) -> Indices:
    """Return up to `most` indices of `count`: the newer half, and the rest evenly taken from the older ones."""
    if count <= most:
        return np.arange(count)
    newer = count - most // 2
    older = np.linspace(0, newer - 1, most - most // 2).round().astype(int)
    return np.unique(np.append(older, np.arange(newer, count)))


def learn(history: History, codes: Codes, objective: int, bars: Array) -> Learned:
    """Return what is believed of one objective from finished, stopped and running trials.

    A stopped trial counts as the mean of what is below its bar (n,), given all others, or as what it was
    expected to reach where that is less; a running one as what is expected of it (Ginsbourger, Le Riche &
    Carraro 2010: the believer).
    """
    finished = np.flatnonzero(history.where(Ended.FINISHED))
    finished = finished[recent(len(finished))]
    features = codes.features(history.rows[finished])
    clip, process = _most_evident(features, history.gains[finished, objective])
    others = np.flatnonzero(history.where(Ended.STOPPED, Ended.RUNNING))[-_MOST // 2 :]
    if not len(others):
        return Learned(process=process, clip=clip)
    belief = process.at(codes.features(history.rows[others]))
    stopped = history.where(Ended.STOPPED)[others]
    spread = np.hypot(belief.deviation, process.noise)
    below = mean_below(clip(bars[others]), belief.mean, spread)
    least = np.fmin(below, clip(history.expected[others, objective]))
    believed = np.where(stopped, least, belief.mean)
    rows = history.rows[np.append(finished, others)]
    values = clip(history.gains[finished, objective])
    return Learned(process=process.observing(codes.features(rows), np.append(values, believed)), clip=clip)


def _most_evident(features: Features, values: Array) -> tuple[Clip, Process]:
    """Return how to clip values, if at all, so that they are most probable (Snelson et al. 2004), and their process."""
    clips = [clip_at(values, share) for share in _SHARES]
    processes = [fit(features, clip(values)) for clip in clips]
    evidence = [
        process.evidence + float(np.log(clip.slope(values)).mean())
        for clip, process in zip(clips, processes, strict=True)
    ]
    best = int(np.argmax(evidence))
    return clips[best], processes[best]


def success(history: History, codes: Codes) -> Process | None:
    """Return a process of whether plans succeed, 1 or 0, None if none has failed."""
    refused = [np.frombuffer(row) for row, answer in history.asked.items() if answer is None]
    told = ~history.where(Ended.RUNNING, Ended.SPARED)
    rows = np.vstack([np.array(refused).reshape(-1, len(codes.names)), history.rows[told]])
    went_well = np.append(np.zeros(len(refused)), 1.0 - history.where(Ended.FAILED)[told])
    return share(codes, rows, went_well)


def share(codes: Codes, rows: Array, happened: Array) -> Process | None:
    """Return a process of whether something happens, from examples (n,) of 1 or 0, None if it always did."""
    if happened.all():
        return None
    kept = recent(len(rows))
    return fit(codes.features(rows[kept]), happened[kept])


def log_share(process: Process | None, features: Features) -> Array:
    """Return the logarithm of a probability by such a process (Rasmussen & Williams 2006, §6.5), 0 without one."""
    if process is None:
        return np.zeros(len(features))
    belief = process.at(features)
    middle = np.full(len(features), 0.5)
    return log_probability_below(-middle, -belief.mean, np.hypot(belief.deviation, process.noise))


def limits(history: History, codes: Codes, decided: frozenset[str]) -> tuple[Process, ...]:
    """Return a process for the violation of each limit that is not decided before training and has been broken."""
    found = []
    finished = np.flatnonzero(history.where(Ended.FINISHED))
    finished = finished[recent(len(finished))]
    for column, limit in enumerate(history.limits):
        violations = history.violations[finished, column]
        seen = ~np.isnan(violations)
        if limit not in decided and (violations[seen] > 0).any():
            found.append(fit(codes.features(history.rows[finished[seen]]), violations[seen]))
    return tuple(found)


def log_within(processes: Sequence[Process], features: Features) -> Array:
    """Return the logarithm of the probability that plans keep limits, given processes of their violations."""
    beliefs = [process.at(features) for process in processes]
    zero = np.zeros(len(features))
    return sum((log_probability_below(zero, belief.mean, belief.deviation) for belief in beliefs), zero)


def normal_nodes(dimensions: int, most: int = 16) -> Array:
    """Return points (s, dimensions) that stand for a standard Gaussian, of equal weight.

    In one dimension the middles of 5 equal parts; in more a Kronecker sequence (Roberts 2018, R_d), its
    mean and spread corrected.
    """
    if dimensions == 0:
        return np.zeros((1, 0))
    if dimensions == 1:
        return np.asarray(ndtri((np.arange(5) + 0.5) / 5))[:, None]
    ratio = _plastic(dimensions)
    steps = ratio ** -np.arange(1.0, dimensions + 1)
    nodes = np.asarray(ndtri((0.5 + np.outer(np.arange(most), steps)) % 1.0))
    return np.asarray((nodes - nodes.mean(axis=0)) / nodes.std(axis=0))


def _plastic(dimensions: int) -> float:
    """Return the root of x^(d+1) = x + 1."""
    x = 2.0
    for _ in range(40):
        x = (1.0 + x) ** (1.0 / (dimensions + 1))
    return x


def log_mean(logs: Array | Sequence[Array]) -> Array:
    """Return the logarithm of the mean over the first axis of values given by their logarithms."""
    array = np.asarray(logs)
    top = array.max(axis=0)
    safe = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(safe + np.log(np.exp(array - safe).mean(axis=0)))
