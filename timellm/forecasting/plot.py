"""A forecast as a picture: one HTML file that works offline, or a PNG."""

import html
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from timellm.contract.colours import LIGHT, translucent
from timellm.contract.errors import InputError
from timellm.forecasting.backtest import Backtest
from timellm.forecasting.baselines import last_value, naive_name, seasonal_naive
from timellm.forecasting.frames import Panel
from timellm.forecasting.scores import ALL

SUFFIXES = (".html", ".png")

_HEIGHT = 230
"""Pixels of one series."""

_INK, _ACCENT, _NAIVE = LIGHT["ink"], LIGHT["accent"], LIGHT["second"]
_OPACITY = 0.18
_BAND = translucent(_ACCENT, _OPACITY)
"""Of an interval."""


@dataclass(frozen=True, eq=False, slots=True)
class Shown:
    """One series of a picture, own units.

    Attributes:
        name: Of the series.
        past: Dates and values of the history's end.
        future: Dates of the forecast.
        y_hat: Forecast.
        low: Lower end of its interval; None where it has none.
        high: Upper end.
        naive: A naive forecast beside it.
        naive_name: What that is called.
    """

    name: str
    past: tuple[pd.DatetimeIndex, np.ndarray]
    future: pd.DatetimeIndex
    y_hat: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    naive: np.ndarray
    naive_name: str


def shown_forecast(panel: Panel, forecast: pd.DataFrame, season: int, history: int) -> list[Shown]:
    """What a picture of a forecast shows, series by series.

    Args:
        panel: The history.
        forecast: Long, as `Forecaster.forecast` gives it.
        season: Steps of a season of the naive forecast; 1 repeats the last value.
        history: Rows of the history to show.
    """
    low, high = ([name for name in map(str, forecast) if name.startswith(f"y_hat-{end}-")] for end in ("lo", "hi"))
    past = slice(max(0, len(panel.values) - history), None)
    shown = []
    for number, (name, rows) in enumerate(forecast.groupby("unique_id", sort=False)):
        ends, column = np.array([len(panel.values)]), np.array([number])
        is_seasonal = 1 < season <= len(panel.values)
        naive = (
            seasonal_naive(panel.values, ends, column, len(rows), season)
            if is_seasonal
            else last_value(panel.values, ends, column, len(rows))
        )[0]
        shown.append(
            Shown(
                str(name),
                (panel.dates[past], panel.values[past, number]),
                pd.DatetimeIndex(rows["ds"]),
                rows["y_hat"].to_numpy(),
                rows[low[0]].to_numpy() if low else None,
                rows[high[0]].to_numpy() if high else None,
                naive,
                naive_name(season if is_seasonal else 1),
            )
        )
    return shown


def check_plot_name(path: Path) -> None:
    """Refuse a picture that is neither HTML nor PNG.

    Raises:
        InputError: If its ending is another.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"plot must be a file that ends in {' or '.join(SUFFIXES)}, got {path}.")


def draw_forecast(path: Path, series: list[Shown], title: str, notes: list[str]) -> None:
    """Draw history, forecast, interval and naive forecast of every series, below each other."""
    check_plot_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        _draw_png(path, series, title)
    else:
        _write_page(path, _figure(series), title, notes)


def draw_backtest(path: Path, backtest: Backtest, title: str) -> None:
    """Draw the error of each model by step ahead, over all columns, scaled units; its table stands below."""
    import plotly.graph_objects as go

    check_plot_name(path)
    rows = backtest.scores[(backtest.scores.unique_id == ALL) & (backtest.scores.step > 0)]
    if path.suffix == ".png":
        _draw_steps_png(path, rows, title)
        return
    figure = go.Figure()
    for model, part in rows.groupby("model", sort=False):
        figure.add_scatter(x=part.step, y=part.scaled_mse, name=str(model), mode="lines")
    figure.update_layout(xaxis_title="step ahead", yaxis_title="MSE, scaled units", height=480)
    table = backtest.summary().to_html(index=False, float_format="{:.4f}".format, border=0)
    _write_page(path, figure, title, list(backtest.notes), table)


def _figure(series: list[Shown]):  # type: ignore[no-untyped-def]
    from plotly.subplots import make_subplots

    titles = [html.escape(one.name) for one in series]
    gap = min(0.3 / len(series), 0.06)
    figure = make_subplots(rows=len(series), cols=1, subplot_titles=titles, vertical_spacing=gap)
    for row, one in enumerate(series, start=1):
        first = {"row": row, "col": 1}
        named = {"showlegend": row == 1}
        if one.low is not None and one.high is not None:
            edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "legendgroup": "interval"}
            figure.add_scatter(x=one.future, y=one.high, **edge, showlegend=False, **first)
            figure.add_scatter(
                x=one.future, y=one.low, **edge, fill="tonexty", fillcolor=_BAND, name="interval", **named, **first
            )
        for name, (x, y), line in (
            ("history", one.past, {"color": _INK, "width": 1.4}),
            (one.naive_name, (one.future, one.naive), {"color": _NAIVE, "width": 1.2, "dash": "dot"}),
            ("forecast", (one.future, one.y_hat), {"color": _ACCENT, "width": 2}),
        ):
            figure.add_scatter(x=x, y=y, mode="lines", name=name, legendgroup=name, line=line, **named, **first)
    figure.update_layout(height=90 + _HEIGHT * len(series), legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"})
    return figure


def _write_page(path: Path, figure, title: str, notes: list[str], table: str = "") -> None:  # type: ignore[no-untyped-def]
    figure.update_layout(template="plotly_white", margin={"l": 60, "r": 20, "t": 60, "b": 40})
    drawing = figure.to_html(full_html=False, include_plotlyjs=True, config={"displaylogo": False, "responsive": True})
    items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    style = f"body{{font:15px system-ui,sans-serif;margin:24px;color:{_INK}}}"
    style += f"h1{{font-size:20px}}li{{color:{LIGHT['muted']}}}"
    style += "table{border-collapse:collapse}td,th{padding:4px 10px;text-align:right}"
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<link rel="icon" href="data:,"><style>{style}</style></head><body><h1>{html.escape(title)}</h1>'
        f"{drawing}{table}<ul>{items}</ul></body></html>\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _draw_png(path: Path, series: list[Shown], title: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 0.7 + 2.1 * len(series)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = np.atleast_1d(figure.subplots(len(series), 1, squeeze=False)[:, 0])
    for axis, one in zip(axes, series, strict=True):
        axis.plot(*one.past, color=_INK, linewidth=1.2, label="history")
        axis.plot(one.future, one.naive, color=_NAIVE, linewidth=1.1, linestyle=":", label=one.naive_name)
        axis.plot(one.future, one.y_hat, color=_ACCENT, linewidth=1.8, label="forecast")
        if one.low is not None and one.high is not None:
            axis.fill_between(
                one.future, one.low, one.high, color=_ACCENT, alpha=_OPACITY, linewidth=0, label="interval"
            )
        axis.set_title(one.name, loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(ncols=4, frameon=False, loc="lower right", bbox_to_anchor=(1, 1), fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    figure.savefig(path, dpi=110)


def _draw_steps_png(path: Path, rows: pd.DataFrame, title: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for model, part in rows.groupby("model", sort=False):
        axis.plot(part.step, part.scaled_mse, label=str(model))
    axis.set(xlabel="step ahead", ylabel="MSE, scaled units", title=title)
    axis.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
