"""Forecasts from rolling origins of a known series, held against what came and against simpler forecasts."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from timellm.contract.errors import InputError
from timellm.forecasting.baselines import LAST_VALUE, last_value, naive_name, seasonal_naive
from timellm.forecasting.frames import Panel
from timellm.forecasting.intervals import Intervals, interval_names
from timellm.forecasting.network import ForecastNetwork
from timellm.forecasting.output import TableFile
from timellm.forecasting.scores import ALL, Scores
from timellm.forecasting.windows import Scaler, split_of, trained_scaler, windows_at

TIME_LLM, CONTROL = "Time-LLM", "no language model"


@dataclass(frozen=True, eq=False)
class Backtest:
    """What a backtest found.

    Attributes:
        scores: Errors by model, column and step: see `timellm.forecasting.scores.COLUMNS`.
        forecasts: Rows `unique_id, cutoff, ds, y, y_hat` and the interval's ends; None where they went into a file.
        notes: What a reader of the scores must know, as sentences.
        season: Steps of a season in MASE and the seasonal naive forecast.
        origins: Origins that were forecast from.
    """

    scores: pd.DataFrame = field(repr=False)
    forecasts: pd.DataFrame | None = field(repr=False)
    notes: tuple[str, ...]
    season: int
    origins: int

    def summary(self) -> pd.DataFrame:
        """Errors over every column and step, one row per model, the best first."""
        rows = self.scores[(self.scores.unique_id == ALL) & (self.scores.step == 0)]
        return rows.drop(columns=["unique_id", "step", "mse", "mae", "width"]).sort_values(
            "scaled_mse", ignore_index=True
        )

    def _repr_html_(self) -> str:
        """For notebooks."""
        notes = "".join(f"<li>{note}</li>" for note in self.notes)
        return f"{self.summary().to_html(index=False, float_format='{:.4f}'.format)}<ul>{notes}</ul>"


@dataclass(frozen=True, eq=False, kw_only=True)
class Origins:
    """Which windows of a panel are forecast.

    Attributes:
        panel: The series, in the network's order of columns.
        first_row: First row of the rows that windows are cut from.
        rows: How many rows those are.
        starts: First rows of the windows' inputs, counted from `first_row`, increasing [origins].
    """

    panel: Panel
    first_row: int
    rows: int
    starts: np.ndarray


def rolling_origins(panel: Panel, count: int, step_size: int, seq_len: int, pred_len: int) -> Origins:
    """The last `count` origins, `step_size` rows apart, the last of them followed by the last `pred_len` rows.

    Raises:
        InputError: If the series is too short for them.
    """
    if count < 1 or step_size < 1:
        raise InputError(f"backtest and step_size must be at least 1, got {count} and {step_size}.")
    rows = seq_len + pred_len + (count - 1) * step_size
    if rows > len(panel.values):
        most = (len(panel.values) - seq_len - pred_len) // step_size + 1
        remedy = f"Use --backtest {most} or less, or a smaller --step_size." if most > 0 else "Give more rows."
        raise InputError(
            f"A backtest of {count} origins, {step_size} apart, needs {rows} rows (seq_len {seq_len}, pred_len "
            f"{pred_len}), got {len(panel.values)} in {panel.source}. {remedy}"
        )
    return Origins(
        panel=panel, first_row=len(panel.values) - rows, rows=rows, starts=np.arange(count, dtype=np.int64) * step_size
    )


class Judge:
    """Runs a backtest.

    Args:
        network: The trained network.
        scaler: Of the panel's columns.
        origins: What is forecast.
        season: Steps of a season.
        mase_scale: Mean absolute seasonal change of the training rows [columns], own units.
        intervals: Intervals around the forecasts.
        control: A network without a language model, trained on the same data.
    """

    def __init__(
        self,
        network: ForecastNetwork,
        scaler: Scaler,
        origins: Origins,
        *,
        season: int,
        mase_scale: np.ndarray,
        intervals: Intervals | None = None,
        control: ForecastNetwork | None = None,
    ) -> None:
        self._network, self._scaler, self._origins = network, scaler, origins
        self._season, self._mase_scale = season, mase_scale
        self._intervals, self._control = intervals, control
        self._seq_len, self._pred_len = network.config.seq_len, network.config.pred_len
        self._has_season = season > 1 and origins.first_row + self._seq_len >= season

    def run(self, out: Path | None, notes: tuple[str, ...]) -> Backtest:
        """Forecast every window and sum up; memory does not grow with their number where `out` takes the forecasts."""
        names = [TIME_LLM, *([CONTROL] if self._control else []), LAST_VALUE]
        names += [naive_name(self._season)] if self._has_season else []
        panel = self._origins.panel
        scores = {name: Scores(name, panel.columns, self._pred_len) for name in names}
        file = TableFile(out, notes) if out is not None else None
        parts = []
        for columns, ends, y, forecasts, half_width in self._forecasts():
            for name, y_hat in forecasts.items():
                scores[name].add(columns, y, y_hat, half_width if name == TIME_LLM else None)
            part = self._rows(columns, ends, y, forecasts[TIME_LLM], half_width)
            if file is None:
                parts.append(part)
            else:
                file.add(part)
        if file is not None:
            file.close()
        table = pd.concat([one.table(self._scaler.std, self._mase_scale) for one in scores.values()], ignore_index=True)
        if not self._has_season and self._season > 1:
            notes = (*notes, f"The history before the first origin is shorter than a season of {self._season} steps.")
        frame = pd.concat(parts, ignore_index=True) if file is None else None
        return Backtest(table, frame, notes, self._season, len(self._origins.starts))

    def _forecasts(
        self,
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray], np.ndarray | None]]:
        """Columns, ends of the inputs, truth, forecasts by model and half widths of batches of windows, own units."""
        origins, scaler = self._origins, self._scaler
        values = origins.panel.values
        rows = slice(origins.first_row, origins.first_row + origins.rows)
        split = split_of(scaler.scaled(values[rows]), self._seq_len, self._pred_len)
        windows = windows_at(split, origins.starts)
        for batch, forecast in self._network.forecasts(split, windows):
            columns, starts = np.divmod(batch.indices[: len(batch.y)].cpu().numpy(), split.windows_per_channel)
            ends = origins.first_row + starts + self._seq_len
            steps = ends[:, None] + np.arange(self._pred_len)
            found = {TIME_LLM: scaler.own_units(forecast.float().cpu().numpy(), columns)}
            if self._control is not None:
                found[CONTROL] = self._control_forecast(self._control, batch.x[: len(columns)], columns)
            found[LAST_VALUE] = last_value(values, ends, columns, self._pred_len)
            if self._has_season:
                season = seasonal_naive(values, ends, columns, self._pred_len, self._season)
                found[naive_name(self._season)] = season
            half_width = None
            if self._intervals is not None:
                half_width = self._intervals.around(batch.x[: len(columns)], columns) * scaler.std[columns, None]
            yield columns, ends, values[steps, columns[:, None]], found, half_width

    def _control_forecast(self, control: ForecastNetwork, x: torch.Tensor, columns: np.ndarray) -> np.ndarray:
        own = self._scaler.own_units(x.cpu().numpy(), columns)
        scaler = trained_scaler(control.facts)
        rescaled = (own - scaler.mean[columns, None]) / scaler.std[columns, None]
        with torch.no_grad():
            forecast = control.network(torch.from_numpy(rescaled.astype(np.float32)).to(control.device), None)
        return scaler.own_units(forecast.float().cpu().numpy(), columns)

    def _rows(
        self, columns: np.ndarray, ends: np.ndarray, y: np.ndarray, y_hat: np.ndarray, half_width: np.ndarray | None
    ) -> pd.DataFrame:
        panel = self._origins.panel
        dates = panel.dates.to_numpy()
        steps = ends[:, None] + np.arange(self._pred_len)
        frame = pd.DataFrame(
            {
                "unique_id": np.repeat(np.asarray(panel.columns, dtype=object)[columns], self._pred_len),
                "cutoff": np.repeat(dates[ends - 1], self._pred_len),
                "ds": dates[steps].ravel(),
                "y": y.ravel(),
                "y_hat": y_hat.ravel(),
            }
        )
        if half_width is not None and self._intervals is not None:
            low, high = interval_names(self._intervals.level)
            frame[low], frame[high] = (y_hat - half_width).ravel(), (y_hat + half_width).ravel()
        return frame
