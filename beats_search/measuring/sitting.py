"""Sitting: blocks of candidates and a reference, round by round, in, what they say of each latency out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from beats_search.measuring.blocks import Block, Clocks, Protocol
from beats_search.measuring.noise import Centre, centre_of, drifts, scatter_of
from beats_search.records.outcome import Interval, Latency

_CROWDED: Final = 0.2  # of all cores' time, others'
_SPAN_S: Final = 0.1  # others' time is counted in hundredths of a second
_BETWEEN_SITTINGS: Final = 0.02
_DISTURBED: Final = 0.27  # together, as far as a neighbour's thread was seen to move a ratio: by 1.6 / 1.2
_ANOTHER_MACHINE: Final = 0.25  # so far from its usual time, in logarithms, the reference is on one
_LIKE_ITS_TIME: Final = 3
"""The power of a candidate's share of the reference's time at which it slows as that does."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """A candidate's block, the reference's of the same round, and how many of the two were disturbed.

    `slowed` is by how much arithmetic took longer beside each of the two, in logarithms, 0 where it was not slow.
    """

    candidate: Block
    reference: Block
    disturbed: int
    slowed: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Beside:
    """A candidate's times over the reference's usual one, and what they may be off by, in logarithms of shape (n,).

    They are off by one of `moves`, most probably by the first.
    """

    candidate: NDArray[np.float64]
    moves: tuple[NDArray[np.float64], ...]

    def ratio(self) -> Centre:
        """Return the candidate's time at the reference's usual one, over that."""
        return centre_of(self.candidate - self.moves[0])

    def ratio_by_any(self) -> Centre:
        """Return it with an interval that holds it by whichever move: no sitting can see why the reference is away."""
        found = [centre_of(self.candidate - move) for move in self.moves]
        return replace(found[0], low=min(each.low for each in found), high=max(each.high for each in found))


@final
class Sitting:
    """The rounds so far, and what they say.

    `usual_ms` is what the reference takes usually; without that, what it takes here.
    """

    def __init__(self, rules: Protocol, clocks: Clocks, usual_ms: float | None) -> None:
        """Start before the first round."""
        self._rules = rules
        self._yardstick = clocks.yardstick
        self._usual_ms = usual_ms
        self._watch = _Watch(clocks)
        self._rounds: list[Sequence[Block]] = []

    @property
    def count(self) -> int:
        """How many rounds there were."""
        return len(self._rounds)

    def note(self, blocks: Sequence[Block]) -> None:
        """Take in the blocks of a round, the reference's first."""
        self._rounds.append(blocks)
        self._watch.note_round()

    def may_improve(self) -> bool:
        """Tell whether too few rounds were undisturbed, and waiting helps: the reason is a neighbour who was not there.

        Others on this machine mostly stay, and so does who has been there for some time.
        """
        crowded = self._watch.crowded()
        if 2 * sum(crowded) > len(crowded) or not self._yardstick.was_fast_lately():
            return False
        return any(pair.disturbed for pairs in self._best() for pair in pairs)

    def half_width(self) -> float:
        """Return the widest half of an interval of a candidate's ratio, as far as rounds tell."""
        return max((self._beside(pairs).ratio().half_width for pairs in self._best()[1:]), default=0.0)

    def latencies(self) -> tuple[Latency, ...]:
        """Return that of the reference and those of the candidates, on the reference's scale."""
        own, *candidates = self._best()
        scale_ms = self._usual_ms or math.exp(centre_of(_logs([pair.reference for pair in own])).value)
        return (self._reference(own), *(self._candidate(pairs, scale_ms) for pairs in candidates))

    def _best(self) -> Sequence[Sequence[_Pair]]:
        """Return for the reference and each candidate its undisturbed pairs, or all where these are too few."""
        paces, crowded = (self._yardstick.best(), self._yardstick.limit()), self._watch.crowded()
        return [self._best_of(place, paces, crowded) for place in range(len(self._rounds[0]))]

    def _best_of(self, place: int, paces: tuple[float, float], crowded: Sequence[bool]) -> Sequence[_Pair]:
        pairs = [
            _pair(blocks[place], blocks[0], paces, crowded=others)
            for blocks, others in zip(self._rounds, crowded, strict=True)
        ]
        undisturbed = [pair for pair in pairs if not pair.disturbed]
        return undisturbed if len(undisturbed) >= self._rules.least_rounds else pairs

    def _beside(self, pairs: Sequence[_Pair]) -> _Beside:
        """Return how a candidate's times are to be seen beside the reference's.

        As much as its rounds scatter beside the reference's, so much it moves with it (the slope of the
        reduced major axis, Kermack & Haldane 1950): a file of the same kind altogether, one that is small
        enough not to wait for memory hardly. Where the whole machine is slower, all move alike. Where a
        neighbour shares the core, one that takes as long as the reference is slowed as that is, a small
        one as arithmetic is.
        """
        candidate, reference = _logs([pair.candidate for pair in pairs]), _logs([pair.reference for pair in pairs])
        if self._usual_ms is None:
            return _Beside(candidate=candidate, moves=(reference,))
        usual = math.log(self._usual_ms)
        away, nothing = reference - usual, np.zeros(len(pairs))
        slowed, beside = np.array([pair.slowed for pair in pairs]).T
        if _is_far(away) and _is_far(away - beside):
            moves = [away]
        elif slowed.any():
            share = min(1.0, math.exp(float(np.median(candidate - reference)))) ** _LIKE_ITS_TIME
            moves = [np.where(slowed > 0, share * away + (1 - share) * slowed, 0.0), nothing, away, slowed]
        else:
            moves = [min(1.0, scatter_of(candidate, beside=reference)) * away, nothing, away]
        return _Beside(candidate=candidate - usual, moves=tuple(moves))

    def _candidate(self, pairs: Sequence[_Pair], scale_ms: float) -> Latency:
        beside = self._beside(pairs)
        ends = _ends(beside.ratio_by_any().beside(_unseen(pairs)))
        interval_ms = Interval(low=ends.low * scale_ms, high=ends.high * scale_ms)
        return self._latency(pairs, beside.ratio(), ends, scale_ms, interval_ms)

    def _reference(self, pairs: Sequence[_Pair]) -> Latency:
        own = centre_of(_logs([pair.reference for pair in pairs]))
        one = Centre(value=0.0, low=0.0, high=0.0)
        return self._latency(pairs, one, _ends(one), math.exp(own.value), _ends(own.beside(_unseen(pairs))))

    def _latency(
        self, pairs: Sequence[_Pair], ratio: Centre, ends: Interval, scale_ms: float, interval_ms: Interval
    ) -> Latency:
        return Latency(
            median_ms=math.exp(ratio.value) * scale_ms,
            interval_ms=interval_ms,
            ratio=math.exp(ratio.value),
            ratio_interval=ends,
            raw_median_ms=float(np.median([pair.candidate.median_ms for pair in pairs])),
            blocks=len(pairs),
            calls=sum(pair.candidate.calls for pair in pairs),
            settled=ratio.half_width <= self._rules.half_width,
            disturbed_blocks=sum(pair.disturbed for pair in pairs),
            drifted=drifts(np.array([pair.reference.median_ms for pair in pairs])),
        )


@final
class _Watch:
    """Notes which rounds others disturbed: whether they computed for long, judged in spans of some rounds each."""

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self._began = clocks.wall(), clocks.others()
        self._told: list[bool] = []
        self._open = 0

    def note_round(self) -> None:
        """Take in that a round has ended."""
        self._open += 1
        wall, others = self._clocks.wall(), self._clocks.others()
        spent = wall - self._began[0]
        if spent >= _SPAN_S:
            self._told += self._open * [others - self._began[1] > _CROWDED * spent]
            self._began, self._open = (wall, others), 0

    def crowded(self) -> list[bool]:
        """Tell of each round whether others computed in it; of the last few what was told before."""
        return self._told + self._open * (self._told[-1:] or [False])


def _pair(candidate: Block, reference: Block, paces: tuple[float, float], *, crowded: bool) -> _Pair:
    _, limit = paces
    disturbed = sum(crowded or block.interrupted or max(block.readings) > limit for block in (candidate, reference))
    return _Pair(candidate, reference, disturbed, (_slowed(candidate, paces), _slowed(reference, paces)))


def _slowed(block: Block, paces: tuple[float, float]) -> float:
    """Return by how much arithmetic took longer beside a block than at best, in logarithms; 0 up to the limit."""
    best, limit = paces
    slow = max(block.readings) > limit
    return max(0.0, float(np.log(block.readings).mean()) - math.log(best)) if slow else 0.0


def _is_far(away: NDArray[np.float64]) -> bool:
    """Tell whether this is more than a machine is away from its usual pace."""
    return abs(float(np.median(away))) > _ANOTHER_MACHINE


def _unseen(pairs: Sequence[_Pair]) -> float:
    """Return what no sitting can see of itself: how the next one will differ."""
    return _BETWEEN_SITTINGS + _DISTURBED * sum(pair.disturbed for pair in pairs) / (2 * len(pairs))


def _logs(blocks: Sequence[Block]) -> NDArray[np.float64]:
    return np.log([block.median_ms for block in blocks])


def _ends(logs: Centre) -> Interval:
    return Interval(low=math.exp(logs.low), high=math.exp(logs.high))
