"""Forecasts of many windows as a table on disk, written as they come."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from timellm.contract.config import RunConfig
from timellm.contract.files import move_into_place, temporary_name
from timellm.data import SeriesData, Split
from timellm.data.borders import published_borders
from timellm.run.batches import Batch

TEST_FORECASTS = "test_forecasts.parquet"
"""Forecasts of the test split, in a run's folder."""


class ForecastFile:
    """Writes rows `unique_id, cutoff, ds, y, y_hat` to parquet, in the data's own units.

    Args:
        path: The file.
        columns: Names of the split's channels.
        mean: Their means [columns], own units.
        std: Their standard deviations [columns].
        times: Date, or number, of every row of the split [rows].
        split: The windows.
    """

    def __init__(
        self, path: Path, columns: tuple[str, ...], mean: np.ndarray, std: np.ndarray, times: pd.Index, split: Split
    ) -> None:
        self._columns, self._mean, self._std = pa.array(columns), mean, std
        self._times, self._split, self._path = times.to_numpy(), split, path
        self._temporary = temporary_name(path)
        self._writer: pq.ParquetWriter | None = None

    def add(self, batch: Batch, forecast: Tensor) -> None:
        """Write the forecasts [windows, pred_len] of a batch."""
        indices = batch.indices[: len(batch.y)].cpu().numpy()
        column, start = np.divmod(indices, self._split.windows_per_channel)
        steps = start[:, None] + self._split.seq_len + np.arange(self._split.pred_len)
        self._write(
            column,
            self._times[start + self._split.seq_len - 1],
            self._times[steps],
            y=self._own_units(batch.y, column),
            y_hat=self._own_units(forecast, column),
        )

    def close(self) -> None:
        """End the file and move it to its name."""
        if self._writer is not None:
            self._writer.close()
            move_into_place(self._temporary, self._path)

    def _own_units(self, scaled: Tensor, column: np.ndarray) -> np.ndarray:
        return scaled.double().cpu().numpy() * self._std[column, None] + self._mean[column, None]

    def _write(self, column: np.ndarray, cutoff: np.ndarray, ds: np.ndarray, **values: np.ndarray) -> None:
        steps = ds.shape[1]
        names = pa.DictionaryArray.from_arrays(pa.array(np.repeat(column, steps).astype(np.int32)), self._columns)
        parts: dict[str, Any] = {"unique_id": names, "cutoff": np.repeat(cutoff, steps), "ds": ds.ravel()}
        table = pa.table({**parts, **{name: part.ravel() for name, part in values.items()}})
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._temporary, table.schema)
        self._writer.write_table(table)


def file_of_test_split(path: Path, config: RunConfig, data: SeriesData) -> ForecastFile:
    """The file of a run's test forecasts."""
    chosen = slice(None) if config.features == "M" or data.target is None else [data.columns.index(data.target)]
    dates = data.dates
    rows = len(data.test.values)
    times: pd.Index = pd.RangeIndex(rows)
    if dates is not None:
        first, last = published_borders(config, len(dates)).test
        times = dates[first:last]
    columns = tuple(np.asarray(data.columns)[chosen].tolist())
    return ForecastFile(path, columns, data.mean[chosen], data.std[chosen], times, data.test)
