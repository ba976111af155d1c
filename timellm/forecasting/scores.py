"""Errors of forecasts by column and step ahead, summed up as they come."""

import numpy as np
import pandas as pd

ALL = "all"
"""Stands for every column."""

COLUMNS = (
    "model", "unique_id", "step", "windows", "mse", "mae", "mase", "smape", "scaled_mse", "scaled_mae",
    "coverage", "width",
)  # fmt: skip
"""Columns of the table; step 0 stands for all steps, and rows of all columns have no errors in own units."""


class Scores:
    """Sums of errors of one model.

    Args:
        model: Its name.
        columns: Names of the series.
        pred_len: Steps ahead.
    """

    def __init__(self, model: str, columns: tuple[str, ...], pred_len: int) -> None:
        self.model, self._names = model, columns
        shape = (len(columns), pred_len)
        self._windows = np.zeros(len(columns), dtype=np.int64)
        self._squared, self._absolute, self._relative = (np.zeros(shape) for _ in range(3))
        self._inside, self._width = np.zeros(shape), np.zeros(shape)
        self._has_interval = False

    def add(self, columns: np.ndarray, y: np.ndarray, y_hat: np.ndarray, half_width: np.ndarray | None = None) -> None:
        """Take forecasts in own units.

        Args:
            columns: Column of each window [windows].
            y: What came [windows, pred_len].
            y_hat: What was forecast.
            half_width: Half width of the interval around it.
        """
        error = np.abs(y_hat - y)
        size = np.abs(y) + np.abs(y_hat)
        relative = 200 * np.divide(error, size, out=np.zeros_like(error), where=size > 0)
        np.add.at(self._windows, columns, 1)
        for total, part in (
            (self._squared, error**2),
            (self._absolute, error),
            (self._relative, relative),
        ):
            np.add.at(total, columns, part)
        if half_width is not None:
            self._has_interval = True
            np.add.at(self._inside, columns, error <= half_width)
            np.add.at(self._width, columns, 2 * half_width)

    def table(self, std: np.ndarray, mase_scale: np.ndarray) -> pd.DataFrame:
        """One row for each column and step, each column, each step, and one for all.

        Args:
            std: What scaled units are multiples of [columns], own units.
            mase_scale: Mean absolute seasonal change of the training rows [columns], own units; 0 or NaN gives none.
        """
        counts = np.maximum(self._windows, 1)[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = {
                "mse": self._squared / counts,
                "mae": self._absolute / counts,
                "mase": np.where(mase_scale > 0, 1.0, np.nan)[:, None] * self._absolute / counts / mase_scale[:, None],
                "smape": self._relative / counts,
                "scaled_mse": self._squared / counts / std[:, None] ** 2,
                "scaled_mae": self._absolute / counts / std[:, None],
                "coverage": self._inside / counts if self._has_interval else np.full_like(self._inside, np.nan),
                "width": self._width / counts if self._has_interval else np.full_like(self._width, np.nan),
            }
        rows = [self._rows(parts, column) for column in range(len(self._names))]
        pooled = {name: part.mean(axis=0, keepdims=True) for name, part in parts.items()}
        for name in ("mse", "mae", "width"):
            pooled[name] = np.full_like(pooled[name], np.nan)  # columns have units of their own
        total = self._rows(pooled, 0).assign(unique_id=ALL, windows=int(self._windows.sum()))
        return pd.concat([*rows, total], ignore_index=True)[list(COLUMNS)]

    def _rows(self, parts: dict[str, np.ndarray], column: int) -> pd.DataFrame:
        """The mean over steps (step 0), then each step."""
        steps = next(iter(parts.values())).shape[1]
        values = {name: [part[column].mean(), *part[column]] for name, part in parts.items()}
        fixed = {"model": self.model, "unique_id": self._names[column], "windows": int(self._windows[column])}
        return pd.DataFrame({**fixed, "step": range(steps + 1), **values})
