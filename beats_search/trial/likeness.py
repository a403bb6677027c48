"""Likeness: a compressed model and its plan in, what its file's speed and size depend on out.

Files of one key run equally fast, whatever their weights have learned, so that one of them is timed for all.
"""

from collections.abc import Hashable

import torch
from torch import nn

from beats_search.records.plan import TrialPlan
from beats_search.tensors.structure import structure_of, weights_of


def file_key(compressed: nn.Module, plan: TrialPlan, input_shape: tuple[int, ...]) -> Hashable | None:
    """Return all that the measures of a model's file depend on, but what it is paired with; None if that is unknown.

    Whole weights are stored in as many bits as their largest needs.
    """
    structure = structure_of(compressed)
    whole = [weight for weight in weights_of(compressed).values() if weight.dtype == torch.int8]
    widths = tuple(int(weight.short().abs().max()).bit_length() for weight in whole)
    return None if structure is None else (structure, widths, plan.runtime, input_shape)
