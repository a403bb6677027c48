"""Quality: logits and labels in, accuracy with its interval out; and whether two sets of logits agree."""

import math

from torch import Tensor

from beats_search.records.errors import ParityError
from beats_search.records.outcome import Interval

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution
_FLOAT_TOLERANCE = 1e-3
_SAME_DECISIONS = 0.98


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of rows of `logits` (n, classes) whose largest entry is at the label (n,)."""
    return float((logits.argmax(dim=1) == labels).double().mean())


def accuracy_interval(share: float, count: int) -> Interval:
    """Return the 95 % interval of a share of `count` trials (Wilson 1927)."""
    middle = share + _Z**2 / (2 * count)
    spread = _Z * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    scale = 1 + _Z**2 / count
    low, high = (middle - spread) / scale, (middle + spread) / scale
    return Interval(low=max(0.0, min(low, share)), high=min(1.0, max(high, share)))  # at 0 and 1 the ends are rounded


def check_finite(logits: Tensor) -> None:
    """Raise ParityError when a file's logits are not numbers to decide by."""
    if not bool(logits.isfinite().all()):
        raise ParityError("the exported file computes logits that are not finite")


def check_parity(exported: Tensor, expected: Tensor, *, exact: bool) -> None:
    """Raise ParityError when a file's logits (n, classes) are not those of the model behind it.

    `exact` files compute in float and may differ in the last digits only; integer kernels round on
    their own, so there the decisions are compared.
    """
    check_finite(exported)
    if exact:
        scale = max(1.0, float(expected.abs().max()))
        difference = float((exported - expected).abs().max())
        if difference > _FLOAT_TOLERANCE * scale:
            raise ParityError(
                f"the exported file's logits differ by {difference:.3g} from the model's (scale {scale:.3g})"
            )
        return
    same = accuracy(exported, expected.argmax(dim=1))
    if same < _SAME_DECISIONS:
        raise ParityError(
            f"the exported file decides like the model on {same:.1%} of inputs; {_SAME_DECISIONS:.0%} is asked"
        )
