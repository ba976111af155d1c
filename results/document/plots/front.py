"""The Pareto front: seconds per epoch against validation MSE."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd

from results.analysis.evidence import Evidence
from results.document.plots.drawing import Figure, hover_text, layout, numbers, titled
from results.document.plots.labels import Labels
from results.document.plots.points import Level, Point, levels_of, points_of
from timellm.contract.columns import SECONDS_PER_EPOCH, VAL_MSE, State, knob_columns

MAX_POINTS = 1500
"""Points off the front that are drawn; a browser slows down beyond."""

LABEL_SHARE = 0.05
"""Height of a control's name, as a share of the front's axis."""

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Confirmed:
    """A configuration that was trained with other seeds too."""

    point: Point
    seconds_std: float
    """Standard deviation of the seconds per epoch; NaN if it is not known."""
    mse_std: float
    """Standard deviation of the validation MSE; NaN if it is not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """A configuration with names: those of the picks it is, and its own if it is the baseline or a plan."""

    point: Point
    names: tuple[str, ...]
    is_planned: bool
    """Whether it is the baseline or a plan."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontPlot:
    """Every complete configuration, the front among them, and what else is worth a look."""

    front: tuple[Point, ...]
    """From fast to slow."""
    others: tuple[Point, ...]
    """Complete configurations off the front: all, or those with the best joint scores where there are too many."""
    left_out: int
    """Configurations off the front that are not among the others."""
    stopped: tuple[Point, ...]
    """Trials that were stopped early, and have both objectives."""
    confirmed: tuple[Confirmed, ...]
    named: tuple[Named, ...]
    controls: tuple[Level, ...]
    seconds: Range
    """Of all complete configurations."""
    mse: Range
    """Ends of the MSE axis."""


def front_plot(evidence: Evidence) -> FrontPlot:
    """What the plot shows; there must be a complete configuration."""
    configurations, front = evidence.configurations, evidence.front
    knobs = evidence.varied or knob_columns(evidence.trials.columns)
    others = configurations[~configurations["trial_id"].isin(front["trial_id"]).to_numpy()]
    shown = _best(others, evidence)
    stopped = evidence.stopped.dropna(subset=[SECONDS_PER_EPOCH, VAL_MSE]).head(MAX_POINTS)
    confirmed = configurations[(configurations["confirmations"] > 0).to_numpy(dtype=bool)]
    seconds = configurations[SECONDS_PER_EPOCH]
    controls = levels_of(evidence)
    return FrontPlot(
        front=points_of(front, knobs),
        others=points_of(shown, knobs),
        left_out=len(others) - len(shown),
        stopped=points_of(stopped, knobs),
        confirmed=tuple(
            Confirmed(point=point, seconds_std=_known(row["seconds_per_epoch_std"]), mse_std=_known(row["val_mse_std"]))
            for point, (_, row) in zip(points_of(confirmed, knobs), confirmed.iterrows(), strict=True)
        ),
        named=_named(evidence, knobs),
        controls=controls,
        seconds=(float(seconds.min()), float(seconds.max())),
        mse=_mse_range(configurations[VAL_MSE], controls),
    )


def _best(rows: pd.DataFrame, evidence: Evidence) -> pd.DataFrame:
    """All rows, or those with the best joint scores where there are too many."""
    if len(rows) <= MAX_POINTS:
        return rows
    logs = np.log(rows[[VAL_MSE, SECONDS_PER_EPOCH]].to_numpy(dtype=float))
    order = np.argsort(logs @ np.array([1.0, evidence.time_weight]), kind="stable")
    return rows.iloc[np.sort(order[:MAX_POINTS])]


def _known(value: float) -> float:
    return math.nan if pd.isna(value) else float(value)


def _named(evidence: Evidence, knobs: Sequence[str]) -> tuple[Named, ...]:
    """Picks, baseline and plans; a configuration that is several has all their names."""
    names: dict[str, list[str]] = {}
    for pick in evidence.recommendation.picks:
        names.setdefault(pick.trial_id, []).append(pick.title.lower())
    for _, row in evidence.named.iterrows():
        names.setdefault(str(row["trial_id"]), []).append(str(row["source"]))
    planned = {str(trial_id) for trial_id in evidence.named["trial_id"]}
    rows = evidence.configurations[evidence.configurations["trial_id"].isin(list(names)).to_numpy()]
    return tuple(
        Named(point=point, names=tuple(names[point.trial_id]), is_planned=point.trial_id in planned)
        for point in points_of(rows, knobs)
    )


def _mse_range(values: pd.Series, controls: Sequence[Level]) -> Range:
    """Every configuration, the controls that are not far off, and some room."""
    low, high = float(values.min()), float(values.max())
    span = max(high - low, 0.02 * high)
    near = [control.val_mse for control in controls if low - span <= control.val_mse <= high + span]
    low, high = min([low, *near]), max([high, *near])
    return low - 0.12 * max(high - low, span), high + 0.1 * max(high - low, span)


def draw_front(plot: FrontPlot) -> Figure:
    """Points, the front as steps, rings around what was confirmed, names, and controls as dotted lines."""
    traces = [_markers(plot.others, State.COMPLETE, {"color": "var(--dot)", "size": 8, "opacity": 0.75})]
    if plot.stopped:
        marker = {"color": "rgba(0,0,0,0)", "size": 8, "line": {"color": "var(--dot)", "width": 1.5}}
        traces.append(_markers(plot.stopped, "stopped early", marker))
    front = _markers(plot.front, "Pareto front", {"color": "var(--accent)", "size": 10})
    front |= {"mode": "lines+markers", "line": {"color": "var(--accent)", "width": 1.5, "shape": "hv"}}
    traces.append(front)
    if plot.confirmed:
        traces.append(_rings(plot.confirmed))
    traces += _named_markers(plot)
    shapes, annotations = _control_lines(plot)
    return {
        "data": traces,
        "layout": layout(
            460,
            xaxis={"type": "log", "title": titled("seconds per epoch (log scale)"), **log_ticks(*plot.seconds)},
            yaxis={"title": titled("validation MSE"), "tickformat": ".4~f", "range": list(plot.mse)},
            shapes=shapes,
            annotations=annotations,
            hovermode="closest",
        ),
    }


def log_ticks(least: float, most: float) -> Figure:
    """Ticks of a log axis at 1, 2 and 5 times powers of ten, written out, and its range.

    Args:
        least: The smallest value on it.
        most: The largest.
    """
    low, high = least / 1.15, most * 1.15
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    shown = [tick for tick in ticks if low <= tick <= high]
    if len(shown) < 2:
        return {"range": [math.log10(low), math.log10(high)]}
    if len(shown) > 8:
        shown = [10.0**power for power in powers]
    texts = [f"{tick:,.10g}" for tick in shown]
    return {"tickvals": shown, "ticktext": texts, "range": [math.log10(low), math.log10(high)]}


def _markers(points: Sequence[Point], name: str, marker: Figure) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": numbers(point.seconds_per_epoch for point in points),
        "y": numbers(point.val_mse for point in points),
        "text": [hover_text(point) for point in points],
        "customdata": [point.trial_id for point in points],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": marker,
    }


def _rings(confirmed: Sequence[Confirmed]) -> Figure:
    marker = {"color": "rgba(0,0,0,0)", "size": 17, "line": {"color": "var(--accent)", "width": 1.5}}
    rings = _markers([each.point for each in confirmed], "confirmed with other seeds", marker)
    return rings | {
        "error_y": _bars([each.mse_std for each in confirmed]),
        "error_x": _bars([each.seconds_std for each in confirmed]),
    }


def _bars(deviations: Sequence[float]) -> Figure:
    lengths = [value or 0.0 for value in numbers(deviations)]
    return {"type": "data", "array": lengths, "color": "var(--accent)", "thickness": 1.2, "width": 3}


def _named_markers(plot: FrontPlot) -> list[Figure]:
    """Baseline and plans as diamonds, picks as circles, each with its names."""
    labels = Labels(plot.seconds, plot.mse)
    traces = []
    for name, is_planned, colour, symbol in (
        ("baseline and plans", True, "var(--ink)", "diamond"),
        ("recommended", False, "var(--accent)", "circle"),
    ):
        part = [named for named in plot.named if named.is_planned == is_planned]
        if not part:
            continue
        trace = _markers([each.point for each in part], name, {"color": colour, "size": 11, "symbol": symbol})
        texts = [_label(each.names) for each in part]
        traces.append(
            trace
            | {"mode": "markers+text", "hovertext": trace["text"], "hovertemplate": "%{hovertext}<extra></extra>"}
            | {"text": texts, "textfont": {"color": "var(--ink)", "size": 12}, "cliponaxis": False}
            | {
                "textposition": [
                    labels.place(each.point, text, _preferred_place(each.point, plot))
                    for each, text in zip(part, texts, strict=True)
                ]
            }
        )
    return traces


def _label(names: Sequence[str]) -> str:
    """Names as a label, two on a line, so that it fits a phone."""
    pairs = [", ".join(names[index : index + 2]) for index in range(0, len(names), 2)]
    return ",<br>".join(map(escape, pairs))


def _preferred_place(point: Point, plot: FrontPlot) -> str:
    """Where a point's label goes: below the front, where there is nothing; at the edges it turns inwards."""
    least, most = map(math.log, plot.seconds)
    place = (math.log(point.seconds_per_epoch) - least) / max(most - least, 1e-9)
    side = "left" if place > 0.2 else "right"
    if point.trial_id in {on_front.trial_id for on_front in plot.front}:
        return f"bottom {side}"
    return "top center" if 0.2 < place < 0.8 else f"top {side}"


def _control_lines(plot: FrontPlot) -> tuple[list[Figure], list[Figure]]:
    """A dotted line for every control, and its name; lines that are too close for two names share one label."""
    line = {"color": "var(--muted)", "width": 1, "dash": "dot"}
    levels = sorted((control.val_mse, control.name) for control in plot.controls)
    shapes = [
        {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": level, "y1": level, "line": line}
        for level, _ in levels
    ]
    low, high = plot.mse
    labels: list[tuple[float, list[str]]] = []
    for level, name in levels:
        if labels and level - labels[-1][0] < LABEL_SHARE * (high - low):
            labels[-1] = (level, [*labels[-1][1], name])
        else:
            labels.append((level, [name]))
    return shapes, [_control_label(level, ", ".join(names)) for level, names in labels]


def _control_label(level: float, text: str) -> Figure:
    return {
        "xref": "paper",
        "x": 1,
        "y": level,
        "xanchor": "right",
        "yanchor": "bottom",
        "showarrow": False,
        "text": escape(text),
        "font": {"color": "var(--muted)", "size": 12},
    }
