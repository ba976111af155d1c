"""Forecasts of the picks: example windows with history, truth, forecast and naive forecast."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from results.analysis.evidence import Evidence
from results.document.plots.drawing import Figure, layout

WINDOWS = 4
"""Example windows of each pick."""

ROW_HEIGHT, GAP = 170, 0.05
"""Height of a pick's row of windows, pixels; gap between windows, share of the width."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """One validation window, scaled units."""

    name: str
    """Its channel and its number."""
    history: tuple[float, ...]
    truth: tuple[float, ...]
    naive: tuple[float, ...]
    forecast: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExamplesRow:
    """The windows of one set of numbers."""

    title: str
    """The picks that have these numbers."""
    windows: tuple[Window, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExamplesPlot:
    """A row of windows for each pick; picks with one set of numbers share a row."""

    rows: tuple[ExamplesRow, ...]
    naive_names: tuple[str, ...]
    """What the naive forecasts are."""


def examples_plot(evidence: Evidence) -> ExamplesPlot:
    """What the plot shows; without a row if no windows were kept."""
    verdict = evidence.recommendation.verdict
    titles: dict[str, list[str]] = {}
    examples: dict[str, list[Mapping[str, Any]]] = {}
    for pick in evidence.recommendation.picks:
        training = verdict.training(pick.row)
        if training is not None and training.examples:
            titles.setdefault(training.numbers, []).append(pick.title)
            examples.setdefault(training.numbers, list(training.examples[:WINDOWS]))
    naive = {str(each["naive_name"]) for kept in examples.values() for each in kept if "naive_name" in each}
    return ExamplesPlot(
        rows=tuple(
            ExamplesRow(title=", ".join(titles[key]), windows=tuple(map(_window, kept)))
            for key, kept in examples.items()
        ),
        naive_names=tuple(sorted(naive)),
    )


def _window(example: Mapping[str, Any]) -> Window:
    series = {
        key: tuple(float(value) for value in example.get(key) or ())
        for key in ("history", "truth", "naive", "forecast")
    }
    return Window(name=f"{example.get('channel', '')}, window {example.get('window', '')}", **series)


def draw_examples(plot: ExamplesPlot) -> Figure:
    """Small plots in rows, the title of each row above it."""
    traces: list[Figure] = []
    axes: Figure = {}
    annotations = []
    width, height = (1 - GAP * (WINDOWS - 1)) / WINDOWS, 1 / len(plot.rows)
    for place, row in enumerate(plot.rows):
        top = 1 - place * height
        label = {"text": escape(row.title), "font": {"size": 12, "color": "var(--ink)"}, "showarrow": False}
        annotations.append(label | {"xref": "paper", "yref": "paper", "x": 0, "y": top, "xanchor": "left"})
        for column, window in enumerate(row.windows):
            number = place * WINDOWS + column + 1
            suffix = "" if number == 1 else str(number)
            left = column * (width + GAP)
            axis = {"gridcolor": "var(--line)", "zeroline": False, "tickfont": {"size": 10}}
            axes[f"xaxis{suffix}"] = {**axis, "domain": [left, left + width], "anchor": f"y{suffix}"}
            domain = [top - 0.84 * height, top - 0.12 * height]
            axes[f"yaxis{suffix}"] = {**axis, "domain": domain, "anchor": f"x{suffix}"}
            traces += _window_lines(window, suffix, is_first=number == 1)
    shape = layout(90 + ROW_HEIGHT * len(plot.rows), annotations=annotations, hovermode="closest")
    return {"data": traces, "layout": {**shape, "margin": {"l": 36, "r": 16, "t": 12, "b": 24}, **axes}}


def _window_lines(window: Window, suffix: str, is_first: bool) -> list[Figure]:
    """The four lines of one window; the history ends where the others begin."""
    lines = (
        (window.history, "history", "var(--dot)", "solid"),
        (window.truth, "truth", "var(--ink)", "solid"),
        (window.naive, "naive forecast", "var(--second)", "dot"),
        (window.forecast, "forecast", "var(--accent)", "solid"),
    )
    traces = []
    for values, name, colour, dash in lines:
        start = -len(values) if name == "history" else 0
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "legendgroup": name,
                "showlegend": is_first,
                "x": list(range(start, start + len(values))),
                "y": list(values),
                "xaxis": f"x{suffix}",
                "yaxis": f"y{suffix}",
                "line": {"color": colour, "width": 1.5, "dash": dash},
                "hovertemplate": f"{escape(window.name)}<br>{name} %{{y:.3f}}<extra></extra>",
            }
        )
    return traces
