"""Training runs that take a second: a tiny random backbone and a short made series."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tests.timellm.tiny_backbones import save_tiny
from timellm.contract.config import RunConfig
from timellm.optimize.engine import build_engine
from timellm.run.preparation import Preparation, prepare
from timellm.run.stepping import Stepper
from timellm.run.training import RunOptions

CPU = torch.device("cpu")


def write_series(path: Path, rows: int = 400, channels: int = 3) -> Path:
    """A CSV of daily waves with noise."""
    generator = np.random.default_rng(0)
    hours = np.arange(rows)
    columns = {
        f"c{channel}": np.sin(2 * np.pi * hours / 24 + channel) + 0.3 * generator.normal(size=rows)
        for channel in range(channels)
    }
    dates = pd.date_range("2020-01-01", periods=rows, freq="h")
    pd.DataFrame({"date": dates, **columns}).to_csv(path, index=False)
    return path


def tiny_config(folder: Path, kind: str = "gpt2", **changes: Any) -> RunConfig:
    """A run on a tiny backbone and series below `folder`, which are made at the first call."""
    backbone, series = folder / kind, folder / "series.csv"
    if not backbone.exists():
        save_tiny(kind, backbone)
    if not series.exists():
        write_series(series)
    settings = {
        "data": "custom", "root_path": str(folder), "data_path": "series.csv", "llm_model": kind,
        "llm_path": str(backbone), "llm_layers": 2, "seq_len": 48, "pred_len": 24, "num_prototypes": 50,
        "batch_size": 8, "train_epochs": 1, "learning_rate": 1e-3,
    }  # fmt: skip
    return RunConfig.from_dict({**settings, **changes})


def set_up(config: RunConfig, steps: int = 100) -> tuple[Preparation, Stepper, list[float]]:
    """A prepared run whose steps append their loss to a list."""
    prepared = prepare(config, CPU, 1)
    engine = build_engine(config, prepared.model, CPU, steps)
    losses: list[float] = []
    stepper = Stepper(config, prepared, engine, CPU, lambda *_: None)
    take_step = stepper.take_step

    def recorded(*arguments: Any) -> torch.Tensor:
        loss = take_step(*arguments)
        losses.append(loss.item())
        return loss

    stepper.take_step = recorded  # type: ignore[method-assign]
    return prepared, stepper, losses


def options(folder: Path, **changes: Any) -> RunOptions:
    """Options of a run that records its events in a list."""
    return RunOptions(folder=folder, **{"min_timed_steps": 2, **changes})
