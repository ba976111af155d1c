"""The plots about the trade: Pareto front, hypervolume over wall clock, parallel coordinates.

A figure is a dict as plotly takes it. Colours are names of CSS variables, `var(--ink)`, which the page's script
resolves, so that plots follow the page's light or dark theme.
"""

import html
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from results.analysis.evidence import Evidence
from results.document.labels import Labels
from timellm.contract.columns import CLEAN, SECONDS_PER_EPOCH, VAL_MSE, State, knob_columns, knob_name
from timellm.contract.words import seconds_words

Figure = dict[str, Any]

LABEL_SHARE = 0.05
"""Height of a control's name, as a share of the front's axis."""
MAX_POINTS = 1500
"""Points off the front that are drawn; a browser slows down beyond."""

MAX_LINES = 250
"""Lines of the parallel coordinates."""

MAX_AXES = 9
"""Knobs of the parallel coordinates, the most important ones."""


def numbers(values: Iterable[Any]) -> list[float | None]:
    """Numbers for JSON; what is missing or not finite is None."""
    return [None if pd.isna(value) or not np.isfinite(float(value)) else float(value) for value in values]


def layout(height: int, **changes: Any) -> Figure:
    """The layout that all plots share."""
    axis = {
        "gridcolor": "var(--line)",
        "linecolor": "var(--line)",
        "zeroline": False,
        "ticks": "",
        "automargin": True,
        "title": {"font": {"color": "var(--muted)", "size": 13}, "standoff": 12},
    }
    return {
        "height": height,
        "margin": {"l": 56, "r": 16, "t": 12, "b": 48},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "var(--ink)", "size": 13},
        "hoverlabel": {
            "bgcolor": "var(--surface)",
            "bordercolor": "var(--line)",
            "font": {"color": "var(--ink)", "size": 12},
            "align": "left",
        },
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"color": "var(--ink)"}},
        "xaxis": axis | changes.pop("xaxis", {}),
        "yaxis": axis | changes.pop("yaxis", {}),
        "dragmode": False,
        **changes,
    }


def titled(text: str) -> dict[str, Any]:
    """The title of an axis."""
    return {"text": text, "font": {"color": "var(--muted)", "size": 13}, "standoff": 12}


def hover_texts(rows: pd.DataFrame, knobs: list[str]) -> list[str]:
    """What hovering over each row shows: its objectives and its configuration, escaped."""
    texts = []
    for _, row in rows.iterrows():
        lines = [
            f"<b>{html.escape(str(row['trial_id']))}</b> {html.escape(str(row['source']))}",
            f"{seconds_words(row[SECONDS_PER_EPOCH])} per epoch, validation MSE {row[VAL_MSE]:.4f}",
        ]
        if row.get("repeats", 1) > 1:
            lines.append(f"mean of {row['repeats']} seeds")
        if pd.notna(row["timing_quality"]) and row["timing_quality"] != CLEAN:
            lines.append(f"timing {html.escape(str(row['timing_quality']))}")
        lines += [f"{knob_name(name)} {html.escape(str(row[name]))}" for name in knobs if pd.notna(row[name])]
        texts.append("<br>".join(lines))
    return texts


def pareto_figure(evidence: Evidence) -> Figure:
    """Seconds per epoch against validation MSE: every complete configuration, the front, baseline, plans and picks."""
    front = evidence.front
    others = evidence.configurations[~evidence.configurations["trial_id"].isin(front["trial_id"]).to_numpy()]
    others = shown_points(others, evidence)
    knobs = evidence.varied or knob_columns(evidence.trials)
    traces = [_points(others, knobs, State.COMPLETE, {"color": "var(--dot)", "size": 8, "opacity": 0.75})]
    stopped = evidence.stopped.dropna(subset=[SECONDS_PER_EPOCH, VAL_MSE]).head(MAX_POINTS)
    if len(stopped):
        marker = {"color": "rgba(0,0,0,0)", "size": 8, "line": {"color": "var(--dot)", "width": 1.5}}
        traces.append(_points(stopped, knobs, "stopped early", marker))
    on_front = _points(front, knobs, "Pareto front", {"color": "var(--accent)", "size": 10})
    on_front |= {"mode": "lines+markers", "line": {"color": "var(--accent)", "width": 1.5, "shape": "hv"}}
    traces.append(on_front)
    confirmed = evidence.configurations[(evidence.configurations["confirmations"] > 0).to_numpy(dtype=bool)]
    if len(confirmed):
        marker = {"color": "rgba(0,0,0,0)", "size": 17, "line": {"color": "var(--accent)", "width": 1.5}}
        ring = _points(confirmed, knobs, "confirmed with other seeds", marker)
        ring |= {"error_y": _bars(confirmed["val_mse_std"]), "error_x": _bars(confirmed["seconds_per_epoch_std"])}
        traces.append(ring)
    traces += _named_points(evidence, knobs)
    shapes, annotations = _control_lines(evidence)
    seconds = evidence.configurations[SECONDS_PER_EPOCH]
    return {
        "data": traces,
        "layout": layout(
            460,
            xaxis={"type": "log", "title": titled("seconds per epoch (log scale)"), **log_ticks(seconds)},
            yaxis={"title": titled("validation MSE"), "tickformat": ".4~f", "range": _mse_range(evidence)},
            shapes=shapes,
            annotations=annotations,
            hovermode="closest",
        ),
    }


def log_ticks(values: pd.Series) -> dict[str, Any]:
    """Ticks of a log axis at 1, 2 and 5 times powers of ten, written out, and its range."""
    low, high = float(values.min()) / 1.15, float(values.max()) * 1.15
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    shown = [tick for tick in ticks if low <= tick <= high]
    if len(shown) < 2:
        return {"range": [math.log10(low), math.log10(high)]}
    if len(shown) > 8:
        shown = [10.0**power for power in powers]
    texts = [f"{tick:,.10g}" for tick in shown]
    return {"tickvals": shown, "ticktext": texts, "range": [math.log10(low), math.log10(high)]}


def _mse_range(evidence: Evidence) -> list[float]:
    """Range of the MSE axis: every configuration, and the controls that are not far off."""
    values = evidence.configurations[VAL_MSE]
    low, high = float(values.min()), float(values.max())
    span = max(high - low, 0.02 * high)
    near = [level for control in evidence.controls if low - span <= (level := float(control["val_mse"])) <= high + span]
    low, high = min([low, *near]), max([high, *near])
    return [low - 0.12 * max(high - low, span), high + 0.1 * max(high - low, span)]


def shown_points(rows: pd.DataFrame, evidence: Evidence) -> pd.DataFrame:
    """The rows that are drawn: all, or those with the best joint scores where there are too many."""
    if len(rows) <= MAX_POINTS:
        return rows
    logs = np.log(rows[[VAL_MSE, SECONDS_PER_EPOCH]].to_numpy(dtype=float))
    order = np.argsort(logs @ np.array([1.0, evidence.time_weight]), kind="stable")
    return rows.iloc[np.sort(order[:MAX_POINTS])]


def _points(rows: pd.DataFrame, knobs: list[str], name: str, marker: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": numbers(rows[SECONDS_PER_EPOCH]),
        "y": numbers(rows[VAL_MSE]),
        "text": hover_texts(rows, knobs),
        "customdata": [str(value) for value in rows["trial_id"]],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": marker,
    }


def _bars(deviations: pd.Series) -> dict[str, Any]:
    return {
        "type": "data",
        "array": [value or 0.0 for value in numbers(deviations)],
        "color": "var(--accent)",
        "thickness": 1.2,
        "width": 3,
    }


def _named_points(evidence: Evidence, knobs: list[str]) -> list[dict[str, Any]]:
    """Baseline and plans as diamonds, picks as labels; a point that is several has one label."""
    labels: dict[str, list[str]] = {}
    for pick in evidence.recommendation.picks:
        labels.setdefault(pick.trial_id, []).append(pick.title.lower())
    for _, row in evidence.named.iterrows():
        labels.setdefault(str(row["trial_id"]), []).append(str(row["source"]))
    rows = evidence.configurations[evidence.configurations["trial_id"].isin(list(labels)).to_numpy()]
    sources = {str(value) for value in evidence.named["trial_id"]}
    placed = Labels(evidence.configurations[SECONDS_PER_EPOCH], _mse_range(evidence))
    traces = []
    for name, chosen, colour, symbol in (
        ("baseline and plans", [str(i) in sources for i in rows["trial_id"]], "var(--ink)", "diamond"),
        ("recommended", [str(i) not in sources for i in rows["trial_id"]], "var(--accent)", "circle"),
    ):
        part = rows[np.array(chosen, dtype=bool)]
        if part.empty:
            continue
        trace = _points(part, knobs, name, {"color": colour, "size": 11, "symbol": symbol})
        texts = [_broken(labels[str(trial_id)]) for trial_id in part["trial_id"]]
        trace |= {"mode": "markers+text", "hovertext": trace["text"], "text": texts}
        trace["textposition"] = [
            placed.place(row, text, _label_place(row, evidence))
            for (_, row), text in zip(part.iterrows(), texts, strict=True)
        ]
        trace |= {"hovertemplate": "%{hovertext}<extra></extra>", "textfont": {"color": "var(--ink)", "size": 12}}
        trace |= {"cliponaxis": False}
        traces.append(trace)
    return traces


def _broken(names: list[str]) -> str:
    """Names as a label, two on a line, so that it fits a phone."""
    pairs = [", ".join(names[index : index + 2]) for index in range(0, len(names), 2)]
    return ",<br>".join(map(html.escape, pairs))


def _label_place(row: pd.Series, evidence: Evidence) -> str:
    """Where a point's label goes: below the front, where there is nothing; at the edges it turns inwards."""
    logs = np.log(evidence.configurations[SECONDS_PER_EPOCH].to_numpy(dtype=float))
    place = (math.log(row[SECONDS_PER_EPOCH]) - logs.min()) / max(float(np.ptp(logs)), 1e-9)
    side = "left" if place > 0.2 else "right"
    if row["trial_id"] in set(evidence.front["trial_id"]):
        return f"bottom {side}"
    return "top center" if 0.2 < place < 0.8 else f"top {side}"


def _control_lines(evidence: Evidence) -> tuple[list[Figure], list[Figure]]:
    """A dotted line for every control, and its name; lines that are too close for two names share one label."""
    line = {"color": "var(--muted)", "width": 1, "dash": "dot"}
    named = sorted((float(control["val_mse"]), str(control["name"])) for control in evidence.controls)
    shapes = [
        {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": level, "y1": level, "line": line}
        for level, _ in named
    ]
    low, high = _mse_range(evidence)
    labels: list[tuple[float, list[str]]] = []
    for level, name in named:
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
        "text": html.escape(text),
        "font": {"color": "var(--muted)", "size": 12},
    }


def growth_figure(evidence: Evidence) -> Figure:
    """Hypervolume over wall clock."""
    growth = evidence.growth
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": numbers(growth["elapsed_seconds"] / 60),
                "y": numbers(growth["hypervolume"]),
                "text": [html.escape(str(value)) for value in growth["trial_id"]],
                "customdata": [int(value) for value in growth["trials"]],
                "hovertemplate": "%{x:.1f} min, %{customdata} trials<br>hypervolume %{y:.3f}<br>%{text}<extra></extra>",
                "line": {"color": "var(--accent)", "width": 2, "shape": "hv"},
                "marker": {"color": "var(--accent)", "size": 5 if len(growth) <= 200 else 1},
            }
        ],
        "layout": layout(
            320,
            xaxis={"title": titled("wall clock, minutes"), "rangemode": "tozero"},
            yaxis={"title": titled("hypervolume"), "rangemode": "tozero"},
            showlegend=False,
        ),
    }


def parallel_figure(evidence: Evidence) -> Figure:
    """One line per configuration through the knobs that vary and both objectives; the front stands out."""
    rows = parallel_rows(evidence)
    columns = [*parallel_knobs(evidence), SECONDS_PER_EPOCH, VAL_MSE]
    scaled = {name: _axis(rows[name], log=name == SECONDS_PER_EPOCH) for name in columns}
    on_front = rows["trial_id"].isin(evidence.front["trial_id"]).to_numpy()
    traces = []
    for name, chosen, colour, width in (
        ("other configurations", ~on_front, "var(--dot-faint)", 1.0),
        ("Pareto front", on_front, "var(--accent)", 2.0),
    ):
        part = rows[chosen]
        texts = hover_texts(part, evidence.varied)
        x: list[int | None] = []
        y: list[float | None] = []
        hover: list[str] = []
        for index, text in zip(np.flatnonzero(chosen), texts, strict=True):
            x += [*range(len(columns)), None]
            y += [scaled[column][0][index] for column in columns] + [None]
            hover += [text] * len(columns) + [""]
        line = {"color": colour, "width": width, "shape": "linear"}
        trace = {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "text": hover, "line": line}
        traces.append({**trace, "hovertemplate": "%{text}<extra></extra>", "connectgaps": False})
    annotations = [
        {"x": position, "y": height, "text": html.escape(label), "showarrow": False, "xanchor": "left", "xshift": 5}
        | {"font": {"size": 11, "color": "var(--ink)"}, "bgcolor": "var(--veil)", "borderpad": 1}
        for position, column in enumerate(columns)
        for height, label in scaled[column][1]
    ]
    ticks = {"tickvals": list(range(len(columns))), "ticktext": [_axis_title(name) for name in columns]}
    return {
        "data": traces,
        "layout": layout(
            380,
            margin={"l": 24, "r": 72, "t": 12, "b": 56},
            xaxis={**ticks, "range": [-0.1, len(columns) - 0.7], "showgrid": True, "gridcolor": "var(--edge)"},
            yaxis={"visible": False, "range": [-0.06, 1.06]},
            annotations=annotations,
            hovermode="closest",
        ),
    }


def parallel_rows(evidence: Evidence) -> pd.DataFrame:
    """The configurations drawn as lines: the front, then the best joint scores."""
    rows = evidence.configurations
    if len(rows) <= MAX_LINES:
        return rows
    front = rows["trial_id"].isin(evidence.front["trial_id"]).to_numpy()
    logs = np.log(rows[[VAL_MSE, SECONDS_PER_EPOCH]].to_numpy(dtype=float))
    order = np.lexsort((logs @ np.array([1.0, evidence.time_weight]), ~front))
    return rows.iloc[np.sort(order[:MAX_LINES])]


def parallel_knobs(evidence: Evidence) -> list[str]:
    """The knobs that are axes: those that vary, the most important ones where there are too many."""
    varied = [name for name in evidence.varied if evidence.configurations[name].nunique(dropna=False) > 1]
    ranked = {f"config/{knob}": rank for rank, knob in enumerate(evidence.importance["knob"])}
    kept = sorted(varied, key=lambda name: ranked.get(name, len(ranked)))[:MAX_AXES]
    return [name for name in varied if name in kept]


def _axis_title(name: str) -> str:
    words = {SECONDS_PER_EPOCH: "seconds<br>per epoch", VAL_MSE: "validation<br>MSE"}
    return words.get(name) or html.escape(knob_name(name)).replace("_", "<br>", 1)


def _axis(column: pd.Series, log: bool) -> tuple[list[float | None], list[tuple[float, str]]]:
    """Heights of a column's values from 0 to 1, and its labels with their heights."""
    numeric = pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)
    if numeric and (column.name in (SECONDS_PER_EPOCH, VAL_MSE) or column.nunique() > 6):
        values = column.to_numpy(dtype=float, na_value=np.nan)
        words = {SECONDS_PER_EPOCH: seconds_words, VAL_MSE: "{:.4f}".format}.get(str(column.name), "{:.3g}".format)
        ends = [words(float(np.nanmin(values))), words(float(np.nanmax(values)))]
        values = np.log(values) if log else values
        low, high = np.nanmin(values), np.nanmax(values)
        if low == high:
            return numbers(0 * values + 0.5), [(0.5, ends[0])]
        return numbers((values - low) / (high - low)), [(0.0, ends[0]), (1.0, ends[1])]
    distinct = sorted(column.dropna().unique().tolist(), key=lambda v: (isinstance(v, str), v))
    levels: list[Any] = [*distinct, *([None] if column.isna().any() else [])]
    step = {str(value): index / max(1, len(levels) - 1) for index, value in enumerate(levels)}
    heights: list[float | None] = [step[str(None if pd.isna(value) else value)] for value in column]
    return heights, [(step[str(value)], "not set" if value is None else str(value)) for value in levels]
