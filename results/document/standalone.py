"""Writes each plot of a report as a file of its own, in plots/."""

from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import plotly.offline

from timellm.contract.files import replace_files
from timellm.contract.layout import RunFolder

PALETTE = {
    "--ink": "#1b1f24",
    "--muted": "#5a626c",
    "--line": "#e4e6e9",
    "--edge": "#c3c8ce",
    "--surface": "#ffffff",
    "--veil": "rgba(255,255,255,0.85)",
    "--accent": "#0b6a8f",
    "--second": "#b8862b",
    "--dot": "#8a949f",
    "--dot-faint": "rgba(138,148,159,0.35)",
    "--band": "#dfe3e7",
    "--band-strong": "#c9cfd6",
}
"""Colours of the plots on their own; the report has them in its style sheet, for light and dark."""

LIBRARY = "plotly.min.js"
"""The drawing library, once beside the plots."""


def write_plots(folder: RunFolder, figures: dict[str, dict[str, Any]]) -> None:
    """Write plots/NAME.html for every figure, and the library they share.

    Raises:
        ValueError: If a figure is none that plotly knows.
        OSError: If the disk refuses.
    """
    contents: dict[Path, str | bytes] = {}
    for name, figure in figures.items():
        drawn = go.Figure(resolve_colours(figure))
        drawn.update_layout(paper_bgcolor=PALETTE["--surface"])
        contents[folder.plots / f"{name}.html"] = drawn.to_html(
            include_plotlyjs=LIBRARY, config={"displaylogo": False, "responsive": True}
        )
    if contents and not (folder.plots / LIBRARY).is_file():
        contents[folder.plots / LIBRARY] = plotly.offline.get_plotlyjs()
    replace_files(contents)


def resolve_colours(node: Any) -> Any:
    """A figure with its colour names replaced by colours."""
    if isinstance(node, dict):
        return {key: resolve_colours(value) for key, value in node.items()}
    if isinstance(node, list):
        return [resolve_colours(value) for value in node]
    if isinstance(node, str) and node.startswith("var("):
        return PALETTE[node[4:-1]]
    return node
