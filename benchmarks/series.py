"""Made series for timing: of ETTm1's shape, or of any number of channels."""

from pathlib import Path

import numpy as np
import pandas as pd

from timellm.cache import cache_dir
from timellm.contract.files import replaced

ETTM1_ROWS = 69_680
ETTM1_COLUMNS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
ROWS_PER_DAY = 96


def made_settings(given: dict[str, object]) -> dict[str, object]:
    """Data settings of a run on a made series of ETTm1's shape, where no data set was named."""
    if "data" in given or "root_path" in given or "data_path" in given:
        return {"data": "ETTm1"}
    path = made_series("ETTm1-made.csv", ETTM1_ROWS, ETTM1_COLUMNS)
    return {"data": "ETTm1", "root_path": str(path.parent), "data_path": path.name}


def is_made(data_path: str | None) -> bool:
    """Whether a run's data file is one of these."""
    return data_path is not None and data_path.endswith("-made.csv")


def data_label(data: str, data_path: str | None) -> str:
    """Name of the data for a table; says when it is made."""
    return f"made series of {data}'s shape" if is_made(data_path) else data


def made_series(name: str, rows: int, columns: tuple[str, ...]) -> Path:
    """A CSV of daily and weekly waves and noise, written once.

    Args:
        name: File name in the cache folder.
        rows: Time steps, a quarter of an hour each.
        columns: Names of the channels.
    """
    path = cache_dir() / "series" / name
    if path.is_file():
        return path
    generator = np.random.default_rng(0)
    day = 2 * np.pi * np.arange(rows)[:, None] / ROWS_PER_DAY
    phase, size = generator.uniform(0, 2 * np.pi, (2, len(columns))), generator.uniform(1, 5, (2, len(columns)))
    waves = size[0] * np.sin(day + phase[0]) + size[1] * np.sin(day / 7 + phase[1])
    walk = np.cumsum(generator.normal(0, 0.05, (rows, len(columns))), axis=0)
    frame = pd.DataFrame(waves + walk + generator.normal(0, 0.5, waves.shape), columns=list(columns)).round(3)
    frame.insert(0, "date", pd.date_range("2016-07-01", periods=rows, freq="15min"))
    with replaced(path) as temporary:
        frame.to_csv(temporary, index=False)
    return path
