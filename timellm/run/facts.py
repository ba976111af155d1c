"""What a checkpoint says beside its parameters, so that it can forecast without the data it was trained on."""

import dataclasses
import functools
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.data.borders import published_borders
from timellm.data.dates import season_of
from timellm.data.series import SeriesData, data_file
from timellm.machine.environment import package_versions
from timellm.run.preparation import Preparation

FORMAT = 1
"""Raised when the meaning of a field changes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Data, language model and machine of a training."""

    format: int = FORMAT
    """Version of these fields."""
    columns: tuple[str, ...]
    """Columns that are forecast: every one (M), or the target (S, MS)."""
    trained_columns: tuple[str, ...]
    """Columns that were trained on."""
    target: str | None = None
    """Target of S and MS."""
    mean: tuple[float, ...]
    """Mean of each forecast column over the training rows, the data's own units."""
    std: tuple[float, ...]
    """Standard deviation likewise; 1 for a constant column."""
    frequency: str | None = None
    """Pandas offset between rows; None where the dates have none."""
    trained_until: str | None = None
    """Date of the last training row, ISO 8601."""
    validated_until: str | None = None
    """Date of the last validation row, ISO 8601."""
    seasonal_scales: dict[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    """By season in steps: mean absolute change of each forecast column over a season, training rows, own units."""
    description: str = ""
    """What the prompt says of the data."""
    data: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Name, checksum and file of the data."""
    backbone: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Name, type and checksum of the language model."""
    prefix: tuple[int, ...] = ()
    """Tokens that all prompts of the training started with, where the model kept them."""
    longest_prompt: int = 0
    """Tokens of the training's longest prompt."""
    threads: int = 1
    """CPU threads of the training."""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    """Versions of packages."""
    interval: str | None = None
    """The kind of interval that halves of the validation windows chose: plain or scaled."""
    calibration_windows: int = 0
    """Validation windows of a column that its intervals are computed from."""

    def to_json(self) -> str:
        """All fields as JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Facts":
        """The inverse of `to_json`, after parsing.

        Raises:
            InputError: For a field that is missing, unknown, or of a later format.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise InputError(f"A checkpoint's facts must be those of format {FORMAT}, got also {', '.join(unknown)}.")
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        try:
            facts = cls(**values)
        except TypeError as error:
            raise InputError(f"A checkpoint must say its columns, mean and std: {error}.") from error
        if facts.format > FORMAT:
            raise InputError(
                f"A checkpoint must be of format {FORMAT} or earlier, got {facts.format}. Use a newer timellm-search."
            )
        return facts

    def with_interval(self, kind: str, windows: int) -> "Facts":
        """A copy that names the intervals' kind and the number of windows that they are computed from."""
        return dataclasses.replace(self, interval=kind, calibration_windows=windows)


def facts_of(config: RunConfig, prepared: Preparation) -> Facts:
    """The facts of a run whose network is built."""
    return dataclasses.replace(
        facts_of_data(config, prepared.data),
        backbone=_backbone_facts(prepared),
        prefix=prepared.prefix,
        longest_prompt=prepared.longest_prompt,
        threads=torch.get_num_threads(),
        versions=_versions(),
    )


def facts_of_data(config: RunConfig, data: SeriesData) -> Facts:
    """The facts that a data set tells."""
    dates, frequency = data.dates, data.frequency
    chosen = slice(None) if config.features == "M" or data.target is None else [data.columns.index(data.target)]
    rows = data.train.values[:, chosen].double().cpu().numpy()  # [rows, forecast columns]
    mean, std = data.mean[chosen], data.std[chosen]
    seasons = {1, season_of(frequency)}
    trained_until, validated_until = _last_dates(config, dates)
    return Facts(
        columns=tuple(np.asarray(data.columns)[chosen].tolist()),
        trained_columns=data.columns,
        target=data.target,
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        frequency=frequency,
        seasonal_scales={
            str(season): tuple((std * seasonal_scale(rows, season)).tolist())
            for season in seasons
            if season < len(rows)
        },
        description=data.description,
        data={"name": data.name, "checksum": data.checksum, "file": str(data_file(config).absolute())},
        trained_until=trained_until,
        validated_until=validated_until,
    )


def seasonal_scale(rows: np.ndarray, season: int) -> np.ndarray:
    """Mean absolute change over a season of rows [rows, columns]: the unit of MASE (Hyndman and Koehler 2006)."""
    return np.abs(rows[season:] - rows[:-season]).mean(axis=0)


def _backbone_facts(prepared: Preparation) -> dict[str, Any]:
    source = prepared.source
    if source is None:
        return {"name": "none", "label": "no language model", "checksum": None}
    return {"name": source.name, "label": source.label, "kind": source.kind, "checksum": source.checksum}


def _last_dates(config: RunConfig, dates: pd.DatetimeIndex | None) -> tuple[str | None, str | None]:
    """Dates of the last training and the last validation row."""
    if dates is None:
        return None, None
    borders = published_borders(config, len(dates))
    return dates[borders.train[1] - 1].isoformat(), dates[borders.validation[1] - 1].isoformat()


@functools.cache
def _versions() -> dict[str, str]:
    return package_versions()
