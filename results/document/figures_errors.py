"""The plots about errors: how they fell over training time, and what forecasts look like."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from results.analysis.evidence import Evidence
from results.document.figures import Figure, layout, titled
from timellm.contract.columns import BASELINE, VAL_MSE

MAX_CURVES = 12
"""Configurations of the front whose curve is drawn, the fastest ones."""

WINDOWS = 4
"""Example windows of each pick."""

ROW_HEIGHT, GAP = 170, 0.05
"""Height of a pick's row of windows, pixels; gap between windows, share of the width."""


def curve_points(row: pd.Series, curve: Sequence[Mapping[str, float]], accumulation: int) -> list[tuple[float, float]]:
    """Minutes of training and error of each point of a curve.

    Args:
        row: The configuration; its time is start-up, compilation, and the steps at its own seconds per step.
        curve: Its validations: `step` and `val_mse`.
        accumulation: Micro batches of an optimizer step.
    """
    before = sum(float(row[name]) for name in ("startup_seconds", "compile_seconds") if pd.notna(row[name]))
    step = float(row["seconds_per_batch"]) * accumulation
    ordered = sorted(curve, key=lambda point: point["step"])
    return [((before + point["step"] * step) / 60, float(point[VAL_MSE])) for point in ordered]


def curve_rows(evidence: Evidence) -> list[tuple[pd.Series, list[tuple[float, float]]]]:
    """The baseline and the front's configurations that have a curve and a time per step, with their points."""
    verdict = evidence.recommendation.verdict
    reference = evidence.recommendation.reference
    rows = [reference] if len(reference) else []
    rows += [row for _, row in evidence.front.head(MAX_CURVES).iterrows() if row["trial_id"] != reference["trial_id"]]
    found = []
    for row in rows:
        training = verdict.training(row)
        if training is not None and training.curve and pd.notna(row["seconds_per_batch"]):
            accumulation = int(training.config.get("accumulation_steps") or 1)
            found.append((row, curve_points(row, training.curve, accumulation)))
    return found


def curves_figure(evidence: Evidence) -> Figure:
    """Error over training time: the front, the baseline, and the controls as levels."""
    traces = []
    for row, points in curve_rows(evidence):
        is_baseline = row["source"] == BASELINE
        name = html.escape(f"{row['trial_id']} {row['source']}")
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": "baseline" if is_baseline else "Pareto front",
                "legendgroup": "baseline" if is_baseline else "front",
                "showlegend": not any(trace["legendgroup"] == "front" for trace in traces) or is_baseline,
                "x": [minutes for minutes, _ in points],
                "y": [error for _, error in points],
                "line": {"color": "var(--ink)" if is_baseline else "var(--accent)", "width": 2},
                "marker": {"size": 6},
                "hovertemplate": f"{name}<br>%{{x:.2f}} min, MSE %{{y:.4f}}<extra></extra>",
            }
        )
    ends = [minutes for trace in traces for minutes in trace["x"]]
    for control in evidence.controls:
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": html.escape(str(control["name"])),
                "legendgroup": "control",
                "x": [0.0, max(ends)],
                "y": [float(control[VAL_MSE])] * 2,
                "line": {"color": "var(--muted)", "width": 1, "dash": "dot"},
                "hovertemplate": f"{html.escape(str(control['name']))}: MSE %{{y:.4f}}<extra></extra>",
            }
        )
    return {
        "data": traces,
        "layout": layout(
            380,
            xaxis={"title": titled("training time, minutes"), "rangemode": "tozero"},
            yaxis={"title": titled("validation MSE"), "tickformat": ".4~f"},
            hovermode="closest",
        ),
    }


def example_rows(evidence: Evidence) -> list[tuple[str, Sequence[Mapping[str, Any]]]]:
    """Titles of the picks and their example windows; picks with one set of numbers share a row."""
    verdict = evidence.recommendation.verdict
    rows: dict[str, tuple[list[str], Sequence[Mapping[str, Any]]]] = {}
    for pick in evidence.recommendation.picks:
        training = verdict.training(pick.row)
        if training is not None and training.examples:
            rows.setdefault(training.numbers, ([], training.examples[:WINDOWS]))[0].append(pick.title)
    return [(", ".join(titles), examples) for titles, examples in rows.values()]


def examples_figure(evidence: Evidence) -> Figure:
    """History, truth, forecast and naive forecast of each pick's example windows, a row for each pick."""
    rows = example_rows(evidence)
    traces: list[Figure] = []
    axes: Figure = {}
    annotations = []
    width, height = (1 - GAP * (WINDOWS - 1)) / WINDOWS, 1 / len(rows)
    for place, (title, examples) in enumerate(rows):
        top = 1 - place * height
        label = {"text": html.escape(title), "font": {"size": 12, "color": "var(--ink)"}, "showarrow": False}
        annotations.append(label | {"xref": "paper", "yref": "paper", "x": 0, "y": top, "xanchor": "left"})
        for column, example in enumerate(examples):
            number = place * WINDOWS + column + 1
            suffix = "" if number == 1 else str(number)
            left = column * (width + GAP)
            axis = {"gridcolor": "var(--line)", "zeroline": False, "tickfont": {"size": 10}}
            axes[f"xaxis{suffix}"] = {**axis, "domain": [left, left + width], "anchor": f"y{suffix}"}
            domain = [top - 0.84 * height, top - 0.12 * height]
            axes[f"yaxis{suffix}"] = {**axis, "domain": domain, "anchor": f"x{suffix}"}
            traces += _window_traces(example, suffix, is_first=number == 1)
    shape = layout(90 + ROW_HEIGHT * len(rows), annotations=annotations, hovermode="closest")
    return {"data": traces, "layout": {**shape, "margin": {"l": 36, "r": 16, "t": 12, "b": 24}, **axes}}


def _window_traces(example: Mapping[str, Any], suffix: str, is_first: bool) -> list[Figure]:
    """The four lines of one window."""
    lines = (
        ("history", "history", "var(--dot)", "solid"),
        ("truth", "truth", "var(--ink)", "solid"),
        ("naive", "naive forecast", "var(--second)", "dot"),
        ("forecast", "forecast", "var(--accent)", "solid"),
    )
    where = html.escape(f"{example.get('channel', '')}, window {example.get('window', '')}")
    traces = []
    for key, name, colour, dash in lines:
        values = [float(value) for value in example.get(key) or []]
        start = -len(values) if key == "history" else 0
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "legendgroup": name,
                "showlegend": is_first,
                "x": list(range(start, start + len(values))),
                "y": values,
                "xaxis": f"x{suffix}",
                "yaxis": f"y{suffix}",
                "line": {"color": colour, "width": 1.5, "dash": dash},
                "hovertemplate": f"{where}<br>{name} %{{y:.3f}}<extra></extra>",
            }
        )
    return traces
