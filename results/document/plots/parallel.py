"""Configurations side by side: one line for each through the knobs that vary and both objectives."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from results.analysis.evidence import Evidence
from results.document.plots.drawing import Figure, hover_text, layout
from results.document.plots.points import Point, points_of
from timellm.contract.columns import SECONDS_PER_EPOCH, VAL_MSE, knob_column, knob_name
from timellm.contract.words import seconds_words

MAX_LINES = 250
"""Lines that are drawn."""

MAX_AXES = 9
"""Knobs that are axes, the most important ones."""

MAX_LEVELS = 6
"""Values of a number that are levels of their own; more of them are a scale."""

OBJECTIVES = {SECONDS_PER_EPOCH: "seconds per epoch", VAL_MSE: "validation MSE"}
"""Titles of their axes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """A knob or an objective."""

    title: str
    heights: tuple[float, ...]
    """The value of each configuration, from 0 to 1; NaN where it has none."""
    labels: tuple[tuple[float, str], ...]
    """Heights and the values that stand there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParallelPlot:
    """Configurations as lines through axes: the front, then the best joint scores."""

    axes: tuple[Axis, ...]
    """The knobs', then those of both objectives."""
    lines: tuple[Point, ...]
    is_on_front: tuple[bool, ...]
    left_out: int
    """Configurations that are not drawn."""

    @property
    def knobs(self) -> tuple[str, ...]:
        """Names of the knobs that are axes."""
        return tuple(axis.title for axis in self.axes[: -len(OBJECTIVES)])


def parallel_plot(evidence: Evidence) -> ParallelPlot | None:
    """What the plot shows; None where there is nothing to compare."""
    knobs = _knobs(evidence)
    if len(evidence.configurations) < 2 or not knobs:
        return None
    rows = _best(evidence)
    return ParallelPlot(
        axes=tuple(_axis(rows[name]) for name in (*knobs, *OBJECTIVES)),
        lines=points_of(rows, evidence.varied),
        is_on_front=tuple(rows["trial_id"].isin(evidence.front["trial_id"]).tolist()),
        left_out=len(evidence.configurations) - len(rows),
    )


def _knobs(evidence: Evidence) -> list[str]:
    """Columns of the knobs that vary, the most important ones where there are too many."""
    varied = [name for name in evidence.varied if evidence.configurations[name].nunique(dropna=False) > 1]
    ranked = {knob_column(knob): rank for rank, knob in enumerate(evidence.importance["knob"])}
    kept = sorted(varied, key=lambda name: ranked.get(name, len(ranked)))[:MAX_AXES]
    return [name for name in varied if name in kept]


def _best(evidence: Evidence) -> pd.DataFrame:
    """All configurations, or the front and the best joint scores where there are too many."""
    rows = evidence.configurations
    if len(rows) <= MAX_LINES:
        return rows
    front = rows["trial_id"].isin(evidence.front["trial_id"]).to_numpy()
    logs = np.log(rows[[VAL_MSE, SECONDS_PER_EPOCH]].to_numpy(dtype=float))
    order = np.lexsort((logs @ np.array([1.0, evidence.time_weight]), ~front))
    return rows.iloc[np.sort(order[:MAX_LINES])]


def _axis(column: pd.Series) -> Axis:
    """A scale for numbers of many values, levels for all else."""
    name = str(column.name)
    is_number = pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)
    if is_number and (name in OBJECTIVES or column.nunique() > MAX_LEVELS):
        heights, labels = _scale(column.to_numpy(dtype=float, na_value=np.nan), name)
    else:
        heights, labels = _levels(column)
    return Axis(title=OBJECTIVES.get(name) or knob_name(name), heights=tuple(heights), labels=tuple(labels))


def _scale(values: np.ndarray, name: str) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights of numbers, time on a logarithm, and the labels of both ends."""
    words = {SECONDS_PER_EPOCH: seconds_words, VAL_MSE: "{:.4f}".format}.get(name, "{:.3g}".format)
    ends = [words(float(np.nanmin(values))), words(float(np.nanmax(values)))]
    values = np.log(values) if name == SECONDS_PER_EPOCH else values
    low, high = np.nanmin(values), np.nanmax(values)
    if low == high:
        return (0 * values + 0.5).tolist(), [(0.5, ends[0])]
    return ((values - low) / (high - low)).tolist(), [(0.0, ends[0]), (1.0, ends[1])]


def _levels(column: pd.Series) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights of values that are levels of their own, and the label of each; missing ones are the highest level."""
    distinct = sorted(column.dropna().unique().tolist(), key=lambda value: (isinstance(value, str), value))
    levels: list[Any] = [*distinct, *([None] if column.isna().any() else [])]
    height = {str(value): index / max(1, len(levels) - 1) for index, value in enumerate(levels)}
    heights = [height[str(None if pd.isna(value) else value)] for value in column]
    return heights, [(height[str(value)], "not set" if value is None else str(value)) for value in levels]


def draw_parallel(plot: ParallelPlot) -> Figure:
    """Faint lines, and the front's above them."""
    annotations = [
        {"x": position, "y": height, "text": escape(label), "showarrow": False, "xanchor": "left", "xshift": 5}
        | {"font": {"size": 11, "color": "var(--ink)"}, "bgcolor": "var(--veil)", "borderpad": 1}
        for position, axis in enumerate(plot.axes)
        for height, label in axis.labels
    ]
    count = len(plot.axes)
    ticks = {"tickvals": list(range(count)), "ticktext": [_title(axis) for axis in plot.axes]}
    return {
        "data": [
            _lines(plot, "other configurations", False, {"color": "var(--dot-faint)", "width": 1.0}),
            _lines(plot, "Pareto front", True, {"color": "var(--accent)", "width": 2.0}),
        ],
        "layout": layout(
            380,
            margin={"l": 24, "r": 72, "t": 12, "b": 56},
            xaxis={**ticks, "range": [-0.1, count - 0.7], "showgrid": True, "gridcolor": "var(--edge)"},
            yaxis={"visible": False, "range": [-0.06, 1.06]},
            annotations=annotations,
            hovermode="closest",
        ),
    }


def _lines(plot: ParallelPlot, name: str, is_on_front: bool, line: Figure) -> Figure:
    """The configurations on the front, or the others, as one trace with gaps between its lines."""
    x: list[int | None] = []
    y: list[float | None] = []
    texts: list[str] = []
    for index, point in enumerate(plot.lines):
        if plot.is_on_front[index] == is_on_front:
            x += [*range(len(plot.axes)), None]
            y += [*_known([axis.heights[index] for axis in plot.axes]), None]
            texts += [hover_text(point)] * len(plot.axes) + [""]
    trace = {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "text": texts}
    return trace | {"line": line | {"shape": "linear"}, "hovertemplate": "%{text}<extra></extra>", "connectgaps": False}


def _known(heights: Sequence[float]) -> list[float | None]:
    return [None if np.isnan(height) else height for height in heights]


def _title(axis: Axis) -> str:
    """A title in two lines."""
    return re.sub("[ _]", "<br>", escape(axis.title), count=1)
