"""A data set made ready for one run: read, split, scaled."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.data.borders import Borders, published_borders
from timellm.data.nyc_weather import read_weather, weather_path
from timellm.data.splits import Split
from timellm.data.tables import Table, file_checksum, read_series

_ETT_DESCRIPTION = (
    "The Electricity Transformer Temperature (ETT) is a crucial indicator in the electric power long-term deployment."
)
_WEATHER_DESCRIPTION = (
    "Hourly weather at New York City's three airports: temperature, dew point, humidity, wind, pressure and visibility."
)
_CUSTOM_DESCRIPTION = "Measurements of one or more variables, taken one after the other at equal distances in time."


@dataclass(frozen=True, eq=False, slots=True)
class SeriesData:
    """Everything a run needs to know of its data.

    Attributes:
        name: Name of the data set; a custom one has its file's.
        train: Windows that are trained on.
        validation: Windows that choose the best checkpoint.
        test: Windows that are looked at once.
        columns: Names of the training split's channels; with features MS the other two hold the target alone.
        target: The column that features S and MS forecast, None with M.
        mean: Mean of each column over the training rows [columns], float64, the data's own units.
        std: Standard deviation likewise (ddof 0), 1 for a constant column.
        description: What the prompt says of the data set.
        notes: What was changed on the way, as sentences for the user.
        checksum: SHA-256 of the file.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    columns: tuple[str, ...]
    target: str | None
    mean: np.ndarray
    std: np.ndarray
    description: str
    notes: tuple[str, ...]
    checksum: str

    def split(self, name: str) -> Split:
        """The split called train, validation or test."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]


def load_data(config: RunConfig) -> SeriesData:
    """Read the data set of a run, split it at the published borders and scale it.

    Raises:
        InputError: If the file or a column is missing, is not numeric, or has too few rows.
    """
    path = data_file(config)
    target = None if config.features == "M" else config.target or _default_target(config, path)
    table = _read(config, path, target)
    borders = published_borders(config, len(table.values))
    mean, std = _fit_scaler(table, borders)
    scaled = torch.from_numpy(((table.values - mean) / std).astype(np.float32))
    judged = scaled
    if config.features == "MS" and target is not None:
        position = table.columns.index(target)
        judged = scaled[:, position : position + 1]
    return SeriesData(
        name=path.stem if config.data == "custom" else config.data,
        train=_cut(config, scaled, borders.train),
        validation=_cut(config, judged, borders.validation),
        test=_cut(config, judged, borders.test),
        columns=table.columns,
        target=target,
        mean=mean,
        std=std,
        description=_description(config),
        notes=table.notes,
        checksum=file_checksum(path),
    )


def data_file(config: RunConfig) -> Path:
    """The file that a run reads.

    Raises:
        InputError: If none is named, or one beside the embedded data.
    """
    if config.data == "nyc-weather":
        named = config.data_path or config.root_path
        if named is not None:
            raise InputError(
                f"nyc-weather is embedded and reads no file, got {named}. Add --data custom to read a file of your own."
            )
        return weather_path()
    if config.data == "custom" and config.data_path is None:
        raise InputError("data custom needs the name of its CSV file, got none. Name it with --data_path.")
    return Path(config.root_path or ".") / (config.data_path or f"{config.data}.csv")


def _default_target(config: RunConfig, path: Path) -> str:
    if config.data.startswith("ETT"):
        return "OT"
    if config.data == "nyc-weather":
        return read_weather(path).columns[-1]
    return read_series(path, only=None, required=None).columns[-1]


def _read(config: RunConfig, path: Path, target: str | None) -> Table:
    only = target if config.features == "S" else None
    if config.data != "nyc-weather":
        return read_series(path, only=only, required=target)
    table = read_weather(path)
    if target is not None and target not in table.columns:
        raise InputError(
            f"target {target} is not a column of nyc-weather, which has {', '.join(table.columns)}. "
            "Choose one with --target."
        )
    if only is None:
        return table
    position = table.columns.index(only)
    return Table(columns=(only,), values=table.values[:, position : position + 1], notes=table.notes)


def _fit_scaler(table: Table, borders: Borders) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [columns] of the training rows; a constant column keeps its scale."""
    rows = table.values[slice(*borders.scaler)]
    is_constant = rows.max(axis=0) == rows.min(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = rows.mean(axis=0), np.where(is_constant, 1.0, rows.std(axis=0))
    too_large = [name for name, scale in zip(table.columns, mean + std, strict=True) if not np.isfinite(scale)]
    if too_large:
        raise InputError(
            f"Every column must have a finite standard deviation, got values too large for one in "
            f"{', '.join(too_large)}. Correct or rescale them."
        )
    return mean, std


def _cut(config: RunConfig, scaled: torch.Tensor, rows: tuple[int, int]) -> Split:
    return Split(scaled[slice(*rows)].clone(), config.seq_len, config.pred_len)


def _description(config: RunConfig) -> str:
    if config.prompt_description is not None:
        return config.prompt_description
    if config.data.startswith("ETT"):
        return _ETT_DESCRIPTION
    return _WEATHER_DESCRIPTION if config.data == "nyc-weather" else _CUSTOM_DESCRIPTION
