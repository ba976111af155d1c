"""The course of a training: a table, a plot of it, and TensorBoard logs."""

import csv
import html
import time
from pathlib import Path
from typing import Any, TextIO

from timellm.contract.colours import LIGHT
from timellm.contract.job import EventKind

HISTORY = "history.csv"
"""File of the table, in a run's folder."""

LEARNING_CURVE = "learning_curve.html"
"""File of the plot, in a run's folder."""

TENSORBOARD = "tensorboard"
"""Folder of the TensorBoard logs, in a run's folder."""

COLUMNS = ("step", "epoch", "samples", "seconds", "train_loss", "learning_rate", "val_mse", "val_mae")
"""Columns of the table: a row per reported step (about one a second) and per validation; seconds since the start."""


class History:
    """Writes what a run reports as rows and TensorBoard scalars, at once, so that a stopped run leaves them too.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        self._folder = folder
        self._file: TextIO = (folder / HISTORY).open("w", newline="", buffering=1)
        self._table = csv.DictWriter(self._file, COLUMNS)
        self._table.writeheader()
        self._logs = SummaryWriter(str(folder / TENSORBOARD), flush_secs=10)
        self._began = time.monotonic()
        self._steps = 0

    def __call__(self, event: dict[str, Any]) -> None:
        """Take one event of the run."""
        if event["event"] == EventKind.TRAINING:
            self._began = time.monotonic()
        elif event["event"] in (EventKind.PROGRESS, EventKind.VALIDATION):
            self._steps = event.get("step", self._steps)
            row = {name: event[name] for name in COLUMNS if event.get(name) is not None}
            row |= {"step": self._steps, "seconds": round(time.monotonic() - self._began, 3)}
            self._table.writerow(row)
            for name in COLUMNS[4:]:
                if name in row:
                    self._logs.add_scalar(name, row[name], self._steps)

    def close(self) -> None:
        """End the files and draw the plot."""
        self._file.close()
        self._logs.close()
        draw_learning_curve(self._folder)


def draw_learning_curve(folder: Path) -> None:
    """Draw history.csv as learning_curve.html, one file that works offline."""
    import pandas as pd
    import plotly.graph_objects as go

    table = pd.read_csv(folder / HISTORY)
    figure = go.Figure()
    for column, name in (("train_loss", "training loss"), ("val_mse", "validation MSE"), ("val_mae", "validation MAE")):
        rows = table[table[column].notna()]
        hover = [f"{seconds:.0f} s, epoch {epoch:.2f}" for seconds, epoch in zip(rows.seconds, rows.epoch, strict=True)]
        mode = "lines" if column == "train_loss" else "lines+markers"
        figure.add_scatter(x=rows.step, y=rows[column], name=name, mode=mode, text=hover)
    rates = table[table.learning_rate.notna()]
    line = {"dash": "dot", "color": LIGHT["dot"]}
    figure.add_scatter(x=rates.step, y=rates.learning_rate, name="learning rate", yaxis="y2", line=line)
    figure.update_layout(
        title=f"Learning curve: {html.escape(folder.name)}",
        xaxis={"title": "optimizer step"},
        yaxis={"title": "error, scaled units"},
        yaxis2={"title": "learning rate", "overlaying": "y", "side": "right", "showgrid": False},
        legend={"orientation": "h", "y": 1.08},
        template="plotly_white",
    )
    figure.write_html(folder / LEARNING_CURVE, include_plotlyjs=True, config={"displaylogo": False})
