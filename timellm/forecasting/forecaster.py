"""`Forecaster`: a trained checkpoint with a face for DataFrames."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.data.borders import published_borders
from timellm.data.dates import season_of
from timellm.forecasting.backtest import Backtest, Judge, Origins, rolling_origins
from timellm.forecasting.frames import Panel, panel_of, panel_of_file, panel_of_training
from timellm.forecasting.horizon import check_frequency, following_dates, known_frequency
from timellm.forecasting.intervals import CAVEAT, DEFAULT_LEVEL, Intervals, check_level, interval_names, intervals_of
from timellm.forecasting.network import ForecastNetwork
from timellm.forecasting.place import checkpoint_file
from timellm.forecasting.published import is_published, read_published
from timellm.forecasting.windows import Scaler, matching_columns, own_scaler, split_of, trained_scaler, windows_at
from timellm.run.checkpoint import Checkpoint, load_checkpoint, read_checkpoint
from timellm.run.facts import Facts, seasonal_scale

NO_INTERVAL = "none"
"""Asks for forecasts without an interval."""

TEST_SPLIT = "test"
"""Asks a backtest for every window of the training's test split."""


class Forecaster:
    """Forecasts with trained parameters, in the data's own units.

    Attributes:
        checkpoint: What it was loaded from.
        network: The network that forecasts.
    """

    def __init__(self, checkpoint: Checkpoint, network: ForecastNetwork) -> None:
        self.checkpoint, self.network = checkpoint, network

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        settings: str | Path | dict[str, Any] | None = None,
        as_trained: bool = False,
        **changes: Any,
    ) -> "Forecaster":
        """Load a checkpoint and the language model that it was trained with.

        Args:
            path: A checkpoint, the folder of its training, or a search's run folder or pick that was trained.
            settings: What a checkpoint of the published code does not say: a JSON file, or its content.
            as_trained: Compute exactly as the training's own test pass, down to the threads.
            **changes: Settings of where it runs: `device`, or `llm_path`, another folder of the same language model.

        Raises:
            InputError: If there is no such checkpoint, it is damaged, or its language model is not the one here.
        """
        file = checkpoint_file(Path(path))
        changes = {name: str(value) for name, value in changes.items() if value is not None}
        if unknown := sorted(set(changes) - {"device", "llm_path"}):
            raise InputError(f"A checkpoint is loaded with device or llm_path, got {', '.join(unknown)}.")
        if is_published(file):
            return cls(*read_published(file, settings, changes, as_trained=as_trained))
        if settings is not None:
            raise InputError(f"settings are for checkpoints of the published code, and {file} has its own. Drop them.")
        checkpoint = read_checkpoint(file)
        checkpoint = dataclasses.replace(checkpoint, config=checkpoint.config.replace(**changes))
        if as_trained:
            torch.set_num_threads(checkpoint.facts.threads)
        network = ForecastNetwork(checkpoint.config, checkpoint.facts, as_trained=as_trained)
        load_checkpoint(file, network.network)
        return cls(checkpoint, network)

    @classmethod
    def train(cls, data: pd.DataFrame, *, folder: str | Path | None = None, **settings: Any) -> "Forecaster":
        """Train on a DataFrame, in a process of its own, and load what comes out.

        Args:
            data: Wide or long.
            folder: Where data, checkpoint and history go (default: a new folder below `checkpoints`).
            **settings: Settings of `RunConfig`, such as `train_epochs` or `llm_model`; `checkpoint`, `init_from`.

        Raises:
            InputError: For data or settings that a training refuses.
            RuntimeError: If the training fails.
        """
        from timellm.forecasting.training import train

        return cls.load(train(data, folder, settings))

    @property
    def config(self) -> RunConfig:
        """Settings of the training."""
        return self.checkpoint.config

    @property
    def facts(self) -> Facts:
        """Data, language model and machine of the training."""
        return self.checkpoint.facts

    def __repr__(self) -> str:
        """Name of the file, what it forecasts, and from what."""
        facts, config = self.facts, self.config
        return (
            f"Forecaster({str(self.checkpoint.path)!r}: {len(facts.columns)} columns, the next {config.pred_len} steps "
            f"({facts.frequency}) from {config.seq_len}, {facts.backbone.get('label')})"
        )

    def history(self, data: Any = None, *, other_data: bool = False, freq: str | None = None) -> tuple[Panel, str]:
        """The series to forecast, in the order of the network's columns, and their frequency.

        Args:
            data: A DataFrame, the path of a CSV or parquet file, or None for the data of the training.
            other_data: Take columns that were not trained on.
            freq: Pandas offset, instead of the training's.

        Raises:
            InputError: If they do not fit the training, or are too short.
        """
        facts = self.facts
        if data is None:
            panel = panel_of_training(self.config, Path(facts.data["file"]))
        elif isinstance(data, str | Path):
            panel = panel_of_file(Path(data))
        else:
            panel = panel_of(data)
        if not other_data:
            panel = matching_columns(panel, facts)
        if len(panel.values) < self.config.seq_len:
            raise InputError(
                f"{panel.source} must hold at least seq_len = {self.config.seq_len} rows to forecast from, got "
                f"{len(panel.values)}. Give a longer history."
            )
        frequency = known_frequency(facts.frequency, freq, panel.dates)
        # Rows that were trained on are what they are: only those that are forecast from must be on the frequency.
        used = panel.dates[-self.config.seq_len :] if data is None else panel.dates
        check_frequency(used, frequency, panel.source)
        return panel, frequency

    def forecast(
        self,
        data: Any = None,
        *,
        level: int | None = None,
        interval: str | None = None,
        other_data: bool = False,
        freq: str | None = None,
        wide: bool = False,
    ) -> pd.DataFrame:
        """Forecast the next `pred_len` steps after the end of the data.

        Args:
            data: A DataFrame, wide (`ds` or `date`, and a column per series) or long (`unique_id, ds, y`), the path of
                a file of either form, or None for the data of the training.
            level: Level of the interval, percent (default: 90, where enough validation windows were seen).
            interval: `plain`, `scaled` or `none` (default: what the validation windows chose).
            other_data: Forecast columns that were not trained on, each scaled by its own history; without interval.
            freq: Pandas offset between rows, instead of the training's.
            wide: One row per date instead of one per series and date.

        Returns:
            `unique_id, ds, y_hat` and the interval's ends, own units; notes stand in `attrs["notes"]`.

        Raises:
            InputError: If the data do not fit the training.
        """
        panel, frequency = self.history(data, other_data=other_data, freq=freq)
        frame = self.forecast_panel(panel, frequency, level=level, interval=interval, other_data=other_data)
        return widened(frame) if wide else frame

    def forecast_panel(
        self,
        panel: Panel,
        frequency: str,
        *,
        level: int | None = None,
        interval: str | None = None,
        other_data: bool = False,
    ) -> pd.DataFrame:
        """Forecast what `history` gave; otherwise as `forecast`."""
        intervals, notes = self._intervals(level, interval, other_data=other_data)
        scaler = own_scaler(panel.values) if other_data else trained_scaler(self.facts)
        y_hat, half_width = self._last_windows(panel, scaler, intervals)
        dates = following_dates(panel.dates[-1], frequency, self.config.pred_len)
        frame = pd.DataFrame(
            {
                "unique_id": np.repeat(np.asarray(panel.columns, dtype=object), len(dates)),
                "ds": np.tile(dates, len(panel.columns)),
                "y_hat": y_hat.ravel(),
            }
        )
        if half_width is not None and intervals is not None:
            low, high = interval_names(intervals.level)
            frame[low], frame[high] = (y_hat - half_width).ravel(), (y_hat + half_width).ravel()
        frame.attrs["notes"] = [*panel.notes, *notes]
        return frame

    def description(self) -> dict[str, Any]:
        """What a table of forecasts says of where they come from, as JSON types."""
        facts, config = self.facts, self.config
        return {
            "checkpoint": str(self.checkpoint.path.absolute()),
            "trained_on": facts.data,
            "trained_until": facts.trained_until,
            "validated_until": facts.validated_until,
            "frequency": facts.frequency,
            "seq_len": config.seq_len,
            "pred_len": config.pred_len,
            "language_model": facts.backbone,
            "chosen_interval": facts.interval,
            "calibration_windows": facts.calibration_windows,
            "versions": facts.versions,
        }

    def backtest(
        self,
        data: Any = None,
        origins: int | str = 8,
        *,
        step_size: int | None = None,
        season: int | None = None,
        level: int | None = None,
        interval: str | None = None,
        other_data: bool = False,
        freq: str | None = None,
        control: "Forecaster | str | Path | None" = None,
        out: str | Path | None = None,
    ) -> Backtest:
        """Forecast from rolling origins whose future is known.

        Args:
            data: As `forecast`.
            origins: How many, ending with the last that is followed by `pred_len` rows; or `test`, every window of the
                training's test split.
            step_size: Rows between origins (default: pred_len).
            season: Steps of a season, for MASE and the seasonal naive forecast (default: from the frequency).
            level: Level of the interval, percent (default: 90, where enough validation windows were seen).
            interval: `plain`, `scaled` or `none`.
            other_data: Judge columns that were not trained on, each scaled by its history before the first origin.
            freq: Pandas offset between rows, instead of the training's.
            control: A checkpoint trained on the same data with `llm_model none`.
            out: CSV or parquet file for the forecasts; they are not kept in memory then.

        Raises:
            InputError: If the data do not fit the training, or are too short.
        """
        config = self.config
        panel, frequency = self.history(data, other_data=other_data, freq=freq)
        chosen = self._origins(panel, data, origins, step_size or config.pred_len)
        season = season_of(frequency) if season is None else season
        if season < 1:
            raise InputError(f"season must be at least 1, got {season}.")
        intervals, notes = self._intervals(level, interval, other_data=other_data)
        before = panel.values[: chosen.first_row + config.seq_len]
        scaler = own_scaler(before) if other_data else trained_scaler(self.facts)
        scale, scale_notes = self._mase_scale(before, season, other_data=other_data)
        judge = Judge(
            self.network,
            scaler,
            chosen,
            season=season,
            mase_scale=scale,
            intervals=intervals,
            control=self._control(control),
        )
        notes = (*panel.notes, *notes, *scale_notes, *self._overlap(panel, chosen))
        return judge.run(None if out is None else Path(out), notes)

    def _origins(self, panel: Panel, data: Any, origins: int | str, step_size: int) -> Origins:
        config = self.config
        if origins != TEST_SPLIT:
            if isinstance(origins, str | bool):
                raise InputError(f"origins must be a whole number or {TEST_SPLIT}, got {origins!r}.")
            return rolling_origins(panel, origins, step_size, config.seq_len, config.pred_len)
        if data is not None:
            raise InputError(
                f"origins {TEST_SPLIT} are those of the training's own data, got other data. Give a number."
            )
        first, last = published_borders(config, len(panel.values)).test
        count = last - first - config.seq_len - config.pred_len + 1
        return Origins(panel=panel, first_row=first, rows=last - first, starts=np.arange(count, dtype=np.int64))

    def _last_windows(
        self, panel: Panel, scaler: Scaler, intervals: Intervals | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Forecasts [columns, pred_len] after the last row, and half widths, own units."""
        seq_len, pred_len = self.config.seq_len, self.config.pred_len
        unknown = np.full((pred_len, len(panel.columns)), np.nan, dtype=np.float32)
        scaled = np.concatenate([scaler.scaled(panel.values[-seq_len:]), unknown])
        split = split_of(scaled, seq_len, pred_len)
        found, widths = [], []
        for batch, forecast in self.network.forecasts(split, windows_at(split, np.zeros(1, dtype=np.int64))):
            columns = batch.indices[: len(batch.y)].cpu().numpy()  # one window of each column
            found.append(scaler.own_units(forecast.float().cpu().numpy(), columns))
            if intervals is not None:
                around = intervals.around(batch.x[: len(columns)], columns)
                widths.append(around * scaler.std[columns, None])
        return np.concatenate(found), np.concatenate(widths) if widths else None

    def _intervals(
        self, level: int | None, kind: str | None, *, other_data: bool
    ) -> tuple[Intervals | None, tuple[str, ...]]:
        """The intervals that are asked for, and what a reader must know of them."""
        if level is not None:
            check_level(level)
        if kind == NO_INTERVAL:
            return None, ()
        calibration = self.checkpoint.calibration
        if other_data or calibration is None:
            reason = "the columns were not trained on" if other_data else "the checkpoint holds no validation errors"
            if kind is not None or level is not None:
                raise InputError(f"There is no interval, because {reason}. Leave level and interval out.")
            return None, (f"No interval is given, because {reason}.",)
        try:
            return intervals_of(calibration, level or DEFAULT_LEVEL, kind), (CAVEAT,)
        except InputError as error:
            if kind is not None or level is not None:
                raise
            return None, (f"No interval is given: {error}",)

    def _mase_scale(self, before: np.ndarray, season: int, *, other_data: bool) -> tuple[np.ndarray, tuple[str, ...]]:
        """Mean absolute seasonal change of each column [columns], and where it is not from the training rows."""
        known = self.facts.seasonal_scales.get(str(season))
        if known is not None and not other_data:
            return np.asarray(known), ()
        if len(before) <= season:
            return np.full(before.shape[1], np.nan), (f"MASE needs {season} rows before the first origin.",)
        note = f"MASE is scaled by the rows before the first origin, with a season of {season} steps."
        return seasonal_scale(before, season), (note,)

    def _overlap(self, panel: Panel, origins: Origins) -> tuple[str, ...]:
        """A note where rows that are judged were seen in training."""
        first = panel.dates[origins.first_row + self.config.seq_len]
        seen = [
            (what, until)
            for what, until in (("trained", self.facts.trained_until), ("validated", self.facts.validated_until))
            if until is not None and first <= pd.Timestamp(until) and set(panel.columns) <= set(self.facts.columns)
        ]
        if not seen:
            return ()
        what, until = seen[0]
        return (f"The first origins forecast rows that were {what} on, which end at {until}: they flatter the model.",)

    def _control(self, control: "Forecaster | str | Path | None") -> ForecastNetwork | None:
        if control is None:
            return None
        loaded = control if isinstance(control, Forecaster) else Forecaster.load(control)
        wanted = (self.facts.columns, self.config.seq_len, self.config.pred_len)
        if not loaded.config.has_no_backbone or wanted != (
            loaded.facts.columns,
            loaded.config.seq_len,
            loaded.config.pred_len,
        ):
            raise InputError(
                f"control must be trained with llm_model none on the same columns, seq_len and pred_len, got {loaded}."
            )
        return loaded.network


def widened(frame: pd.DataFrame) -> pd.DataFrame:
    """Long forecasts as a row per date: `ds`, each series, and its interval as NAME-lo-90 and NAME-hi-90."""
    values: dict[str, Any] = {}
    for column, rows in frame.groupby("unique_id", sort=False):
        values.setdefault("ds", rows["ds"].to_numpy())
        for name in rows.columns[2:]:
            values[str(column) + name.removeprefix("y_hat")] = rows[name].to_numpy()
    wide = pd.DataFrame(values)
    wide.attrs.update(frame.attrs)
    return wide
