"""The plots that explain: levers against the guide, importances, where each trial's time went."""

import html

import numpy as np
import pandas as pd

from results.analysis.evidence import Evidence
from results.analysis.guide import Expectation
from results.document.figures import Figure, layout, numbers, titled
from timellm.contract.columns import SECONDS_PER_EPOCH, VAL_MSE

MAX_BARS = 30
"""Trials whose time is drawn, the last ones."""

PARTS = ("start-up", "compile", "train", "validate and test")
"""Where a trial's time goes."""


LEGEND_ROOM = 260
"""Least height of a plot whose legend has four lines on a phone: plotly gives a legend half of it, pixels."""


def lever_figure(levers: pd.DataFrame) -> Figure:
    """Measured speed-up of each lever with its interval, over the range the guide expects.

    Args:
        levers: Columns `label`, `speedup`, `low`, `high`, `expected` (an Expectation or None).
    """
    labels = [html.escape(label) for label in levers["label"]][::-1]
    rows = levers.iloc[::-1]
    expected: list[Expectation | None] = list(rows["expected"])
    ranges = {
        "type": "bar",
        "orientation": "h",
        "name": "expected by the guide",
        "y": labels,
        "base": [e.low if e else None for e in expected],
        "x": [e.high - e.low if e else None for e in expected],
        "width": 0.62,
        "marker": {"color": "var(--band)"},
        "hoverinfo": "skip",
    }
    errors = {
        "type": "data",
        "symmetric": False,
        "array": [h - v if np.isfinite(h) else 0.0 for h, v in zip(rows["high"], rows["speedup"], strict=True)],
        "arrayminus": [
            v - low if np.isfinite(low) else 0.0 for low, v in zip(rows["low"], rows["speedup"], strict=True)
        ],
        "color": "var(--accent)",
        "thickness": 1.5,
        "width": 4,
    }
    measured = {
        "type": "scatter",
        "mode": "markers",
        "name": "measured here, 95 % interval",
        "y": labels,
        "x": numbers(rows["speedup"]),
        "error_x": errors,
        "marker": {"color": "var(--accent)", "size": 9},
        "hovertemplate": "%{y}: %{x:.2f}x<extra></extra>",
    }
    one = {"type": "line", "x0": 1, "x1": 1, "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
    return {
        "data": [ranges, measured],
        "layout": layout(
            110 + 30 * len(labels),
            margin={"l": 8, "r": 16, "t": 12, "b": 48},
            xaxis={"title": titled("times as fast, all else equal"), "rangemode": "tozero"},
            yaxis={"showgrid": False},
            shapes=[{**one, "line": {"color": "var(--muted)", "width": 1}}],
            bargap=0.3,
        ),
    }


def importance_figure(importance: pd.DataFrame) -> Figure:
    """Share of each objective's variation per knob."""
    rows = importance.iloc[::-1]
    knobs = [html.escape(str(knob)) for knob in rows["knob"]]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": knobs,
            "x": [100 * value for value in rows[objective]],
            "marker": {"color": colour},
            "hovertemplate": "%{y}: %{x:.0f} % of " + name + "<extra></extra>",
        }
        for objective, name, colour in (
            (VAL_MSE, "validation MSE", "var(--second)"),
            (SECONDS_PER_EPOCH, "seconds per epoch", "var(--accent)"),
        )
    ]
    return {
        "data": traces,
        "layout": layout(
            110 + 40 * len(knobs),
            margin={"l": 8, "r": 16, "t": 12, "b": 48},
            xaxis={"title": titled("share of the variation, percent"), "rangemode": "tozero"},
            yaxis={"showgrid": False},
            barmode="group",
            bargap=0.35,
            legend={**layout(0)["legend"], "traceorder": "reversed"},
        ),
    }


def time_parts(trials: pd.DataFrame) -> pd.DataFrame:
    """Seconds of each trial by part; training is its windows over its rate, the last part is what remains."""
    filled = {
        name: trials[name].astype("float64").fillna(0.0).to_numpy()
        for name in ("startup_seconds", "compile_seconds", "total_seconds", "train_samples", "samples_per_second")
    }
    rate = filled["samples_per_second"]
    train = np.divide(filled["train_samples"], rate, out=np.zeros_like(rate), where=rate > 0)
    known = filled["startup_seconds"] + filled["compile_seconds"]
    train = np.minimum(train, np.maximum(filled["total_seconds"] - known, 0.0))
    rest = np.maximum(filled["total_seconds"] - known - train, 0.0)
    parts = (filled["startup_seconds"], filled["compile_seconds"], train, rest)
    return pd.DataFrame(dict(zip(PARTS, parts, strict=True)), index=trials.index)


def breakdown_figure(evidence: Evidence) -> Figure:
    """Where the time of the last trials went."""
    trials = breakdown_rows(evidence)
    parts = time_parts(trials)
    labels = [html.escape(f"{row.trial_id} {row.source}") for row in trials.itertuples()]
    colours = ("var(--dot)", "var(--second)", "var(--accent)", "var(--band-strong)")
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": part,
            "y": labels[::-1],
            "x": numbers(parts[part])[::-1],
            "marker": {"color": colour},
            "hovertemplate": "%{y}<br>" + part + " %{x:.1f} s<extra></extra>",
        }
        for part, colour in zip(PARTS, colours, strict=True)
    ]
    return {
        "data": traces,
        "layout": layout(
            max(LEGEND_ROOM, 110 + 20 * len(labels)),
            margin={"l": 8, "r": 16, "t": 12, "b": 48},
            xaxis={"title": titled("seconds")},
            yaxis={"showgrid": False, "tickfont": {"size": 11}},
            barmode="stack",
            legend={**layout(0)["legend"], "traceorder": "normal"},
            bargap=0.25,
        ),
    }


def breakdown_rows(evidence: Evidence) -> pd.DataFrame:
    """The trials whose time is drawn."""
    timed = evidence.trials[evidence.trials["total_seconds"].notna().to_numpy()]
    return timed.sort_values("started_at", kind="stable").tail(MAX_BARS)
