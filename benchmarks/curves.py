"""Draws curves with bands as an SVG file, without a plotting library."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_WIDTH, _HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 150, 16, 48
_COLOURS = ("#555555", "#0b6e99", "#c0561a", "#3f8f3f", "#8a4fa3", "#a32e4f")
_FLOOR = 0.5
"""Lowest share that is drawn."""


@dataclass(frozen=True)
class Curve:
    """A line of the drawing.

    Attributes:
        name: In the legend.
        family: Curves of one family have one colour.
        is_dashed: Tells two curves of a family apart.
        middle: Values [points].
        low: Lower end of the band [points].
        high: Upper end of the band [points].
    """

    name: str
    family: str
    is_dashed: bool
    middle: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def write_svg(path: Path, minutes: np.ndarray, curves: Sequence[Curve], mark: float) -> None:
    """Draw shares over minutes.

    Args:
        path: The file.
        minutes: Where the curves have values [points].
        curves: What is drawn.
        mark: A share that a horizontal line marks.
    """
    families = list(dict.fromkeys(curve.family for curve in curves))
    parts = [_axes(float(minutes[-1]), mark)]
    for number, curve in enumerate(curves):
        colour = _COLOURS[families.index(curve.family) % len(_COLOURS)]
        dash = ' stroke-dasharray="6 4"' if curve.is_dashed else ""
        if not curve.is_dashed:
            band = [*_points(minutes, curve.low), *_points(minutes, curve.high)[::-1]]
            parts.append(f'<polygon points="{" ".join(band)}" fill="{colour}" opacity="0.12"/>')
        line = " ".join(_points(minutes, curve.middle))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        x, y = _WIDTH - _RIGHT + 12, _TOP + 12 + 20 * number
        parts.append(f'<path d="M{x} {y}h24" stroke="{colour}" stroke-width="2"{dash}/>')
        parts.append(f'<text x="{x + 30}" y="{y + 4}">{curve.name}</text>')
    style = 'font-family="sans-serif" font-size="12" fill="#333"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" {style}>'
    path.write_text("\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', *parts, "</svg>"]) + "\n")


def _points(minutes: np.ndarray, values: Sequence[float]) -> list[str]:
    return [f"{_x(m, float(minutes[-1])):.1f},{_y(value):.1f}" for m, value in zip(minutes, values, strict=True)]


def _x(minutes: float, last: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * minutes / last


def _y(share: float) -> float:
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - (max(share, _FLOOR) - _FLOOR) / (1 - _FLOOR))


def _axes(last: float, mark: float) -> str:
    parts = []
    for share in np.arange(_FLOOR, 1.01, 0.1):
        parts.append(f'<path d="M{_LEFT} {_y(share):.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{_y(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    parts.append(f'<path d="M{_LEFT} {_y(mark):.1f}H{_WIDTH - _RIGHT}" stroke="#333" stroke-dasharray="2 3"/>')
    for minutes in np.linspace(0, last, 6):
        x = _x(float(minutes), last)
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{minutes:.1f}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">minutes; share of the hypervolume (median)</text>'
    )
    return "\n".join(parts)
