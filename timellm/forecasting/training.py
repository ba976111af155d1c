"""Trains on a DataFrame in a process of its own, which has a training's environment whatever the caller's."""

import datetime
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from timellm.contract.errors import InputError
from timellm.contract.layout import CHECKPOINT, DATA
from timellm.forecasting.apart import flags_of, run_apart
from timellm.forecasting.frames import panel_of
from timellm.machine.process import PROJECT_ROOT


def train(data: Any, folder: str | Path | None, settings: Mapping[str, Any]) -> Path:
    """Write the data, run `run_main.py` on them, and show its progress.

    Args:
        data: A DataFrame, wide or long.
        folder: Where everything goes; it must hold no checkpoint yet (default: a new folder below `checkpoints`).
        settings: Flags of `run_main.py` by name; `root_path` and `data_path` are the data's.

    Returns:
        The checkpoint.

    Raises:
        InputError: For data or settings that a training refuses.
        RuntimeError: If the training fails.
    """
    path = new_folder(folder)
    settings = {"data": "custom", **settings}
    taken = sorted({"root_path", "data_path", "itr", "checkpoints", "model_id", "des"} & set(settings))
    if taken or settings["data"] != "custom":
        raise InputError(f"A training on a DataFrame has its own data and folder, got {', '.join(taken) or 'data'}.")
    write_data(data, path / DATA)
    checkpoint = Path(settings.pop("checkpoint", None) or path / CHECKPOINT).absolute()
    flags = {**settings, "data_path": str(path / DATA), "checkpoints": str(path), "checkpoint": str(checkpoint)}
    run_apart([sys.executable, str(PROJECT_ROOT / "timellm" / "run_main.py"), *flags_of(flags)], "training")
    return checkpoint


def new_folder(folder: str | Path | None) -> Path:
    """The folder of a training, made.

    Raises:
        InputError: If it already holds a checkpoint, or cannot be made.
    """
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    path = Path(folder).expanduser().absolute() if folder is not None else Path("checkpoints", now).absolute()
    if (path / CHECKPOINT).exists():
        raise InputError(f"The folder {path} already holds a {CHECKPOINT}. Name a new folder, or load that one.")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder {path} must be one that can be made: {error.strerror}.") from error
    return path


def write_data(data: Any, path: Path) -> None:
    """Write a DataFrame, wide or long, as the parquet file that a training reads: `date`, and a column per series.

    Raises:
        InputError: If it cannot be read as series.
    """
    panel = panel_of(data)
    columns = dict(zip(panel.columns, panel.values.T, strict=True))
    if "date" in columns:
        raise InputError("A series must not be named date. Rename it.")
    pd.DataFrame({"date": panel.dates, **columns}).to_parquet(path, index=False)
