"""Prior: plans in, how likely their settings of training are to be right before any trial has told, out.

A range on a logarithmic scale is written by someone who does not know the order of magnitude, around
what is expected: his own value, or else the middle, is the likeliest, and networks seldom learn at its
ends. The gain to expect of a plan is multiplied by this belief to a power that falls as trials tell
more (Hvarfner et al. 2022, πBO, arXiv:2204.11051).
"""

from typing import Final

import numpy as np

from beats_search.search.frontier.codes import Codes, Mask
from beats_search.search.improvement import Array

_FARTHEST: Final = 2.5
"""How many standard deviations away the farther end of a range is, unless they are narrower than allowed."""

_NARROWEST: Final = float(np.log(10.0)) / 2
"""The least standard deviation, of the logarithm: half a decade, for who writes a narrow range means all of it."""


def log_prior(codes: Codes, rows: Array, usual: Array, decisive: Mask) -> Array:
    """Return the logarithm of the belief in plans (n, k), at most 0.

    It is about continuous ranges on a logarithmic scale, and of those about the ones that are not
    `decisive` (k,) of what is known before training: a structure is sought anywhere. `usual` (k,) has the
    values of the reference, NaN where it has none. A plan that does not use a knob is not doubted.
    """
    found = np.zeros(len(rows))
    for column, (low, high) in codes.magnitudes.items():
        if decisive[column]:
            continue
        centre = np.sqrt(low * high) if np.isnan(usual[column]) else usual[column]
        reach = np.log(max(high / centre, centre / low))
        off = np.log(rows[:, column] / centre) / max(reach / _FARTHEST, _NARROWEST)
        found -= 0.5 * np.nan_to_num(off) ** 2
    return found
