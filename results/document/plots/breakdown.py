"""Where the time of the trials went."""

from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd

from results.analysis.evidence import Evidence
from results.document.plots.drawing import Figure, layout, numbers, titled

MAX_BARS = 30
"""Trials whose time is drawn, the last ones."""

PARTS = ("start-up", "compile", "train", "validate and test")
"""Where a trial's time goes."""

LEGEND_ROOM = 260
"""Least height of a plot whose legend has four lines on a phone: plotly gives a legend half of it, pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialTime:
    """The time of a trial."""

    trial_id: str
    source: str
    seconds: tuple[float, ...]
    """Of each part, in the order of `PARTS`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakdownPlot:
    """The last trials, and what all took together."""

    trials: tuple[TrialTime, ...]
    """In the order in which they began."""
    timed: int
    """Trials that were timed, those that are not drawn included."""
    totals: tuple[float, ...]
    """Seconds of all timed trials for each part."""


def breakdown_plot(evidence: Evidence) -> BreakdownPlot:
    """What the plot shows; without a trial if none was timed."""
    timed = evidence.trials[evidence.trials["total_seconds"].notna().to_numpy()]
    shown = timed.sort_values("started_at", kind="stable").tail(MAX_BARS)
    return BreakdownPlot(
        trials=tuple(
            TrialTime(trial_id=str(trial_id), source=str(source), seconds=tuple(seconds))
            for trial_id, source, seconds in zip(
                shown["trial_id"], shown["source"], time_parts(shown).tolist(), strict=True
            )
        ),
        timed=len(timed),
        totals=tuple(time_parts(timed).sum(axis=0).tolist()),
    )


def time_parts(trials: pd.DataFrame) -> np.ndarray:
    """Seconds of each trial by part [trials, parts].

    Training is its windows over its rate, the last part is what remains.
    """
    filled = {
        name: trials[name].astype("float64").fillna(0.0).to_numpy()
        for name in ("startup_seconds", "compile_seconds", "total_seconds", "train_samples", "samples_per_second")
    }
    rate = filled["samples_per_second"]
    train = np.divide(filled["train_samples"], rate, out=np.zeros_like(rate), where=rate > 0)
    known = filled["startup_seconds"] + filled["compile_seconds"]
    train = np.minimum(train, np.maximum(filled["total_seconds"] - known, 0.0))
    rest = np.maximum(filled["total_seconds"] - known - train, 0.0)
    return np.stack([filled["startup_seconds"], filled["compile_seconds"], train, rest], axis=1)


def draw_breakdown(plot: BreakdownPlot) -> Figure:
    """A stacked bar for each trial, the first one at the top."""
    trials = plot.trials[::-1]
    names = [escape(f"{trial.trial_id} {trial.source}") for trial in trials]
    colours = ("var(--dot)", "var(--second)", "var(--accent)", "var(--band-strong)")
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": part,
            "y": names,
            "x": numbers(trial.seconds[index] for trial in trials),
            "marker": {"color": colour},
            "hovertemplate": "%{y}<br>" + part + " %{x:.1f} s<extra></extra>",
        }
        for index, (part, colour) in enumerate(zip(PARTS, colours, strict=True))
    ]
    return {
        "data": traces,
        "layout": layout(
            max(LEGEND_ROOM, 110 + 20 * len(names)),
            margin={"l": 8, "r": 16, "t": 12, "b": 48},
            xaxis={"title": titled("seconds")},
            yaxis={"showgrid": False, "tickfont": {"size": 11}},
            barmode="stack",
            legend={**layout(0)["legend"], "traceorder": "normal"},
            bargap=0.25,
        ),
    }
