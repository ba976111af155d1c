"""Error over training time: how fast the baseline and the front learnt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import pandas as pd

from results.analysis.evidence import Evidence
from results.document.plots.drawing import Figure, layout, titled
from results.document.plots.points import Level, levels_of
from timellm.contract.columns import BASELINE, VAL_MSE

MAX_CURVES = 12
"""Configurations of the front whose curve is drawn, the fastest ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """The validations of one configuration."""

    trial_id: str
    source: str
    points: tuple[tuple[float, float], ...]
    """Minutes of training and validation MSE."""

    @property
    def is_baseline(self) -> bool:
        """Whether it is the baseline's."""
        return self.source == BASELINE


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvesPlot:
    """The baseline, then the front from fast to slow."""

    curves: tuple[Curve, ...]
    controls: tuple[Level, ...]


def curves_plot(evidence: Evidence) -> CurvesPlot:
    """What the plot shows: configurations that have a curve and a time per step; it may be without any."""
    verdict = evidence.recommendation.verdict
    reference = evidence.recommendation.reference
    rows = [reference] if len(reference) else []
    rows += [row for _, row in evidence.front.head(MAX_CURVES).iterrows() if row["trial_id"] != reference["trial_id"]]
    curves = []
    for row in rows:
        training = verdict.training(row)
        if training is not None and training.curve and pd.notna(row["seconds_per_batch"]):
            accumulation = int(training.config.get("accumulation_steps") or 1)
            points = curve_points(row, training.curve, accumulation)
            curves.append(Curve(trial_id=str(row["trial_id"]), source=str(row["source"]), points=points))
    return CurvesPlot(curves=tuple(curves), controls=levels_of(evidence))


def curve_points(
    row: pd.Series, curve: Sequence[Mapping[str, float]], accumulation: int
) -> tuple[tuple[float, float], ...]:
    """Minutes of training and error of each point of a curve.

    Args:
        row: The configuration; its time is start-up, compilation, and the steps at its own seconds per step.
        curve: Its validations: `step` and `val_mse`.
        accumulation: Micro batches of an optimizer step.
    """
    before = sum(float(row[name]) for name in ("startup_seconds", "compile_seconds") if pd.notna(row[name]))
    step = float(row["seconds_per_batch"]) * accumulation
    ordered = sorted(curve, key=lambda point: point["step"])
    return tuple(((before + point["step"] * step) / 60, float(point[VAL_MSE])) for point in ordered)


def draw_curves(plot: CurvesPlot) -> Figure:
    """A line for each configuration, the controls as dotted levels."""
    traces: list[Figure] = []
    for curve in plot.curves:
        has_front = any(trace["legendgroup"] == "front" for trace in traces)
        traces.append(_curve_line(curve, showlegend=curve.is_baseline or not has_front))
    ends = [minutes for curve in plot.curves for minutes, _ in curve.points]
    traces += [_level_line(control, max(ends)) for control in plot.controls]
    return {
        "data": traces,
        "layout": layout(
            380,
            xaxis={"title": titled("training time, minutes"), "rangemode": "tozero"},
            yaxis={"title": titled("validation MSE"), "tickformat": ".4~f"},
            hovermode="closest",
        ),
    }


def _curve_line(curve: Curve, showlegend: bool) -> Figure:
    name = escape(f"{curve.trial_id} {curve.source}")
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "baseline" if curve.is_baseline else "Pareto front",
        "legendgroup": "baseline" if curve.is_baseline else "front",
        "showlegend": showlegend,
        "x": [minutes for minutes, _ in curve.points],
        "y": [error for _, error in curve.points],
        "line": {"color": "var(--ink)" if curve.is_baseline else "var(--accent)", "width": 2},
        "marker": {"size": 6},
        "hovertemplate": f"{name}<br>%{{x:.2f}} min, MSE %{{y:.4f}}<extra></extra>",
    }


def _level_line(control: Level, end: float) -> Figure:
    name = escape(control.name)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "legendgroup": "control",
        "x": [0.0, end],
        "y": [control.val_mse] * 2,
        "line": {"color": "var(--muted)", "width": 1, "dash": "dot"},
        "hovertemplate": f"{name}: MSE %{{y:.4f}}<extra></extra>",
    }
