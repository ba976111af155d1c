"""What each lever contributed: its measured speed-up with its interval, beside what the guide expects."""

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from results.analysis.effects import NOT_ENOUGH
from results.analysis.evidence import Evidence
from results.analysis.guide import Expectation, expected_of_lever
from results.document.plots.drawing import Figure, layout, numbers, titled
from timellm.contract.columns import SECONDS_PER_EPOCH, VAL_MSE


@dataclass(frozen=True, kw_only=True, slots=True)
class Lever:
    """One knob set to another value, all else equal."""

    name: str
    """Such as `precision fp32 → bf16`."""
    speedup: float
    """Times as fast."""
    low: float
    """End of its 95 % interval; not finite if it is not known."""
    high: float
    expected: Expectation | None
    mse_percent: float
    """Change of the validation MSE; NaN if it was not measured."""
    method: str
    pairs: int
    """Pairs of trials that the paired method compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LeversPlot:
    """The levers with a measured effect on time, the strongest first."""

    levers: tuple[Lever, ...]


def levers_plot(evidence: Evidence) -> LeversPlot:
    """What the plot shows."""
    effects = [row for row in evidence.effects.to_dict(orient="records") if row["method"] != NOT_ENOUGH]
    errors = {_change(row): float(row["ratio"]) for row in effects if row["objective"] == VAL_MSE}
    levers = []
    for row in effects:
        if row["objective"] == SECONDS_PER_EPOCH:
            knob, value, reference = change = _change(row)
            lever = Lever(
                name=f"{knob} {reference} → {value}",
                speedup=1 / row["ratio"],
                low=1 / row["ratio_high"],
                high=1 / row["ratio_low"],
                expected=expected_of_lever(knob, value, reference),
                mse_percent=100 * (errors.get(change, math.nan) - 1),
                method=row["method"],
                pairs=row["pairs"],
            )
            levers.append(lever)
    return LeversPlot(levers=tuple(sorted(levers, key=lambda lever: -lever.speedup)))


def _change(effect: Mapping[Hashable, Any]) -> tuple[Any, Any, Any]:
    """The knob, its value, and the value it is compared with."""
    return effect["knob"], effect["value"], effect["reference"]


def draw_levers(plot: LeversPlot) -> Figure:
    """Measured points with their intervals over the expected ranges as bars, the strongest lever at the top."""
    levers = plot.levers[::-1]
    names = [escape(lever.name) for lever in levers]
    ranges = {
        "type": "bar",
        "orientation": "h",
        "name": "expected by the guide",
        "y": names,
        "base": [lever.expected.low if lever.expected else None for lever in levers],
        "x": [lever.expected.high - lever.expected.low if lever.expected else None for lever in levers],
        "width": 0.62,
        "marker": {"color": "var(--band)"},
        "hoverinfo": "skip",
    }
    errors = {
        "type": "data",
        "symmetric": False,
        "array": [lever.high - lever.speedup if math.isfinite(lever.high) else 0.0 for lever in levers],
        "arrayminus": [lever.speedup - lever.low if math.isfinite(lever.low) else 0.0 for lever in levers],
        "color": "var(--accent)",
        "thickness": 1.5,
        "width": 4,
    }
    measured = {
        "type": "scatter",
        "mode": "markers",
        "name": "measured here, 95 % interval",
        "y": names,
        "x": numbers(lever.speedup for lever in levers),
        "error_x": errors,
        "marker": {"color": "var(--accent)", "size": 9},
        "hovertemplate": "%{y}: %{x:.2f}x<extra></extra>",
    }
    one = {"type": "line", "x0": 1, "x1": 1, "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
    return {
        "data": [ranges, measured],
        "layout": layout(
            110 + 30 * len(levers),
            margin={"l": 8, "r": 16, "t": 12, "b": 48},
            xaxis={"title": titled("times as fast, all else equal"), "rangemode": "tozero"},
            yaxis={"showgrid": False},
            shapes=[{**one, "line": {"color": "var(--muted)", "width": 1}}],
            bargap=0.3,
        ),
    }
