"""A data set made ready for one run: read, split, scaled."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from timellm.contract.config import RunConfig
from timellm.contract.datasets import DATA_SETS
from timellm.contract.errors import InputError
from timellm.data.borders import published_borders
from timellm.data.dates import has_season, infer_frequency, parse_dates
from timellm.data.embedded import EMBEDDED
from timellm.data.scaling import fit_scaler, scale
from timellm.data.splits import Split
from timellm.data.tables import Table, file_checksum, read_series


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
        dates: Dates of the file's rows without a time zone; None where one cannot be read.
        frequency: The pandas offset between the rows, such as `h` or `ME`; None where they have none.
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
    dates: pd.DatetimeIndex | None
    frequency: str | None

    @property
    def seasonal_frequency(self) -> str | None:
        """The frequency, where rows that are its season apart are a day, week or year apart; None elsewhere."""
        return self.frequency if has_season(self.dates, self.frequency) else None

    @property
    def splits(self) -> dict[str, Split]:
        """The three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def split(self, name: str) -> Split:
        """The split called train, validation or test."""
        return self.splits[name]


def load_data(config: RunConfig) -> SeriesData:
    """Read the data set of a run, split it at the published borders and scale it.

    Raises:
        InputError: If the file or a column is missing, is not numeric, or has too few rows.
    """
    path = data_file(config)
    target = None if config.features == "M" else config.target or _default_target(config, path)
    table = _read(config, path, target)
    borders = published_borders(config, len(table.values))
    mean, std, scaling_notes = fit_scaler(table, slice(*borders.scaler))
    scaled = scale(table, mean, std)
    dates = parse_dates(table.dates)
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
        description=config.prompt_description or DATA_SETS[config.data].description,
        notes=(*table.notes, *scaling_notes),
        checksum=file_checksum(path),
        dates=dates,
        frequency=infer_frequency(dates),
    )


def data_file(config: RunConfig) -> Path:
    """The file that a run reads.

    Raises:
        InputError: If none is named, or one beside the embedded data.
    """
    known = DATA_SETS[config.data]
    if known.is_embedded:
        named = config.data_path or config.root_path
        if named is not None:
            raise InputError(
                f"{known.name} is embedded and reads no file, got {named}. "
                "Add --data custom to read a file of your own."
            )
        return EMBEDDED[known.name].locate()
    file_name = config.data_path or known.file_name
    if file_name is None:
        raise InputError(f"data {known.name} needs the name of its CSV file, got none. Name it with --data_path.")
    return Path(config.root_path or ".") / file_name


def _default_target(config: RunConfig, path: Path) -> str:
    return DATA_SETS[config.data].target or _read(config.replace(features="M"), path, None).columns[-1]


def _read(config: RunConfig, path: Path, target: str | None) -> Table:
    only = target if config.features == "S" else None
    embedded = EMBEDDED.get(config.data)
    if embedded is None:
        return read_series(path, only=only, required=target)
    table = embedded.read(path)
    if target is not None and target not in table.columns:
        raise InputError(
            f"target {target} is not a column of {config.data}, which has {', '.join(table.columns)}. "
            "Choose one with --target."
        )
    if only is None:
        return table
    position = table.columns.index(only)
    return dataclasses.replace(table, columns=(only,), values=table.values[:, position : position + 1])


def _cut(config: RunConfig, scaled: torch.Tensor, rows: tuple[int, int]) -> Split:
    return Split(scaled[slice(*rows)].clone(), config.seq_len, config.pred_len)
