"""Plot: named lines in, an SVG with a logarithmic axis of cost and a linear one of shares out."""

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

_WIDTH, _HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 190, 20, 50
_COLOURS: Final = ("#0b6e4f", "#c1121f", "#3a5a98", "#e09f3e", "#7b2cbf", "#6c757d", "#00a6a6", "#8d5524", "#d63384")
_LOWEST: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A name, and points of a cost above 0 and a share."""

    name: str
    points: tuple[tuple[float, float], ...]


def plot(lines: Sequence[Line], cost: str, share: str) -> str:
    """Return the drawing; shares below a half are cut off, and each line keeps its last share to its own end."""
    costs = [at for line in lines for at, _ in line.points]
    low, high = math.log10(min(costs)), math.log10(max(costs))

    def place(at: float, reached: float) -> tuple[float, float]:
        across = (math.log10(at) - low) / ((high - low) or 1.0)
        up = (max(reached, _LOWEST) - _LOWEST) / (1 - _LOWEST)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)

    body = [*_grid(low, high), *_titles(cost, share)]
    for index, line in enumerate(lines):
        colour = _COLOURS[index % len(_COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line.points))
        body.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>')
        y = _TOP + 12 + 20 * index
        body.append(
            f'<rect x="{_WIDTH - _RIGHT + 14}" y="{y - 9}" width="14" height="4" fill="{colour}"/>'
            f'<text x="{_WIDTH - _RIGHT + 34}" y="{y - 3}">{html.escape(line.name)}</text>'
        )
    style = "<style>text{font:12px sans-serif;fill:#222}</style><rect width='100%' height='100%' fill='#fff'/>"
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}">{style}{"".join(body)}</svg>\n'


def _grid(low: float, high: float) -> Iterator[str]:
    for tenth in range(5, 11):
        y = _HEIGHT - _BOTTOM - (tenth / 10 - _LOWEST) / (1 - _LOWEST) * (_HEIGHT - _TOP - _BOTTOM)
        yield f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tenth * 10} %</text>'
    for power in range(math.ceil(low), math.floor(high) + 1):
        x = _LEFT + (power - low) / ((high - low) or 1.0) * (_WIDTH - _LEFT - _RIGHT)
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="#ddd"/>'
        yield f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{10**power:g}</text>'


def _titles(cost: str, share: str) -> Iterator[str]:
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    yield f'<text x="{middle:.0f}" y="{_HEIGHT - 10}" text-anchor="middle">{html.escape(cost)}</text>'
    yield f'<text transform="translate(14 {_HEIGHT / 2}) rotate(-90)" text-anchor="middle">{html.escape(share)}</text>'
