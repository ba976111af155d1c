"""Trained checkpoints of a second, for tests of forecasts."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.timellm.tiny_runs import tiny_config
from timellm import forecast
from timellm.arguments import run_command
from timellm.contract.config import RunConfig
from timellm.run.training import RunOptions, TrainingRun

AMPLITUDE = 8.0
"""Of the planted daily wave, degrees."""

COLUMNS = ("indoor", "outdoor")


def wave(rows: int = 500, start: str = "2024-01-01", freq: str = "h") -> pd.DataFrame:
    """Two temperatures with a daily wave, in degrees, wide."""
    generator = np.random.default_rng(3)
    steps = np.arange(rows)
    daily = AMPLITUDE * np.sin(2 * np.pi * steps / 24)
    noise = generator.normal(scale=0.4, size=(2, rows))
    dates = pd.date_range(start, periods=rows, freq=freq)
    return pd.DataFrame({"date": dates, "indoor": 300 + daily + noise[0], "outdoor": 15 + daily + noise[1]})


def train(folder: Path, frame: pd.DataFrame | None = None, name: str = "run", **changes: Any) -> tuple[Path, RunConfig]:
    """Train on a frame below a folder; returns the checkpoint and its settings."""
    (wave() if frame is None else frame).to_csv(folder / "series.csv", index=False)
    config = tiny_config(folder, **changes)
    torch.set_num_threads(1)
    options = RunOptions(
        folder / name,
        checkpoint=folder / name / "checkpoint.safetensors",
        saves_forecasts=config.train_samples is None,
        min_timed_steps=1,
    )
    options.folder.mkdir(parents=True, exist_ok=True)
    result = TrainingRun(config, options).run()
    assert result.state == "complete", result.error
    assert options.checkpoint is not None
    return options.checkpoint, config


def run_forecast(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *flags: Any
) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of the command."""
    monkeypatch.setattr(sys, "argv", ["forecast.py", *map(str, flags)])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SystemExit) as ended:
        run_command(forecast.main, forecast.PROG)
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err
