"""What all drawings share.

A figure is a dict as plotly takes it. Colours are names of CSS variables, `var(--ink)`, which the page's script
resolves, so that plots follow the page's light or dark theme. Plotly reads some tags in texts, so every text of a run
is escaped.
"""

import math
from collections.abc import Iterable
from html import escape
from typing import Any

from results.document.plots.points import Point

Figure = dict[str, Any]


def numbers(values: Iterable[float | None]) -> list[float | None]:
    """Numbers for JSON; what is missing or not finite is None."""
    return [None if value is None or not math.isfinite(value) else float(value) for value in values]


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


def hover_text(point: Point) -> str:
    """What hovering over a configuration shows."""
    first = f"<b>{escape(point.trial_id)}</b> {escape(point.source)}"
    return "<br>".join([first, *map(escape, point.says)])
