"""Writes each plot of a report as a file of its own, in plots/."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import plotly.offline

from timellm.contract.colours import LIGHT
from timellm.contract.files import replace_files
from timellm.contract.layout import RunFolder

LIBRARY = "plotly.min.js"
"""The drawing library, a single file beside the plots."""


def write_plots(folder: RunFolder, figures: Mapping[str, Mapping[str, Any]]) -> None:
    """Write plots/NAME.html for every figure, and the library they share.

    Raises:
        ValueError: If plotly does not know a figure.
        OSError: If the disk refuses.
    """
    contents: dict[Path, str | bytes] = {}
    for name, figure in figures.items():
        drawn = go.Figure(resolve_colours(dict(figure)))
        drawn.update_layout(paper_bgcolor=LIGHT["surface"])
        contents[folder.plots / f"{name}.html"] = drawn.to_html(
            include_plotlyjs=LIBRARY, config={"displaylogo": False, "responsive": True}
        )
    if contents and not (folder.plots / LIBRARY).is_file():
        contents[folder.plots / LIBRARY] = plotly.offline.get_plotlyjs()
    replace_files(contents)


def resolve_colours(node: Any) -> Any:
    """A figure with its colour names replaced by colours; the report has them as variables, for light and dark."""
    if isinstance(node, dict):
        return {key: resolve_colours(value) for key, value in node.items()}
    if isinstance(node, list):
        return [resolve_colours(value) for value in node]
    if isinstance(node, str) and node.startswith("var("):
        return LIGHT[node.removeprefix("var(--").removesuffix(")")]
    return node
