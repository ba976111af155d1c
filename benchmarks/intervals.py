"""Coverage and width of forecast intervals on ETTh1, beside the same intervals around a seasonal naive forecast."""

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.document import conditions, device_heading
from benchmarks.harness import FOLDER, benchmark_parser, run_settings, show_progress
from benchmarks.record import Notes, Section, Table, table
from benchmarks.runner import Benchmark
from timellm.check import check_run
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.contract.layout import TrialFolder
from timellm.data import Split, load_data, stratified_subset
from timellm.data.dates import season_of
from timellm.forecasting.apart import flags_of
from timellm.forecasting.forecaster import Forecaster
from timellm.forecasting.intervals import DEFAULT_LEVEL, Intervals, intervals_of
from timellm.machine.environment import choose_device, worker_environment
from timellm.run.residuals import KINDS, conformal_quantiles, deviation

TEST_WINDOWS = 700
DEFAULTS: dict[str, object] = {
    "data": "ETTh1",
    "pred_len": 24,
    "llm_layers": 2,
    "num_prototypes": 100,
    "prompt_prefix": "reuse",
    "attention": "sdpa",
    "learning_rate": 2e-3,
    "lradj": "constant",
    "train_samples": 960,
    "val_samples": 700,
    "eval_batch_size": 64,
}
"""A training of minutes; what a flag says wins."""
INTRODUCTION = f"""# Intervals

What split-conformal intervals at {DEFAULT_LEVEL} % hold on the test split, in percent, and how wide they are, in scaled
units: around the forecasts of a small training, and around the last day repeated, whose errors are taken from the same
validation windows. `plain` is the errors' quantile, `scaled` that of errors divided by the deviation of the window that
they follow. Validation chose the checkpoint and, between the two kinds, the default; nothing was chosen on test, and
what came out is written down whatever it is. ETTh1's validation errors are larger than its test errors, so more than
{DEFAULT_LEVEL} % is to be expected."""
NETWORK, NAIVE = "Time-LLM", "seasonal naive"


@dataclass(frozen=True, eq=False)
class Held:
    """What one kind of interval held.

    Attributes:
        name: Forecast and kind.
        inside: Whether each value lies within [windows, pred_len].
        width: Width, scaled units [windows, pred_len].
        columns: Column of each window [windows].
    """

    name: str
    inside: np.ndarray
    width: np.ndarray
    columns: np.ndarray


class IntervalsHeld(Benchmark):
    """Judges intervals of both kinds on a test split."""

    name = "intervals"
    title = "Coverage and width of intervals on ETTh1, by column and step."
    introduction = INTRODUCTION
    gpu_flags = None

    def parser(self) -> argparse.ArgumentParser:
        """Its flags."""
        parser = benchmark_parser(self.name, self.title)
        parser.add_argument(
            "--test_windows", type=int, default=TEST_WINDOWS, help=f"windows that are judged ({TEST_WINDOWS})"
        )
        return parser

    def measure(self, arguments: argparse.Namespace) -> list[Section]:
        """The section of this device and model."""
        config = run_settings(arguments, **DEFAULTS)
        check_run(config)
        torch.set_num_threads(arguments.threads)
        device = choose_device(config)
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = _trained(config, arguments.threads, Path(folder))
            show_progress("trained; forecasting the test windows")
            forecaster = Forecaster.load(checkpoint)
            held, errors = _judge(forecaster, config, arguments.test_windows)
        facts = forecaster.facts
        judged = len(held[0].columns)
        notes = conditions(
            device,
            f"Run: {facts.backbone['label']}, {config.llm_layers} layers, {config.data} {config.seq_len} -> "
            f"{config.pred_len}, {config.train_samples} training windows, learning rate {config.learning_rate:g}",
            f"Errors of {facts.calibration_windows} validation windows of each column; {judged} test windows, "
            f"{judged // len(facts.columns)} of each column",
            "Mean squared errors of the test windows, scaled units: "
            + ", ".join(f"{name} {error:.4f}" for name, error in errors.items()),
            f"Halves of the validation windows chose: {facts.interval}",
        )
        columns = [(name, one) for one, name in enumerate(facts.columns)]
        tables = by_column(held, columns), by_step(held)
        return [Section(device_heading(device, facts.backbone["label"], config.data), (notes, *tables, _verdict(held)))]


def _trained(config: RunConfig, threads: int, folder: Path) -> Path:
    """Train in a process of its own; its checkpoint."""
    checkpoint = TrialFolder(folder).checkpoint
    flags = {**config.to_dict(), "num_threads": threads, "checkpoints": folder, "checkpoint": checkpoint}
    command = [sys.executable, str(FOLDER.parent / "timellm" / "run_main.py"), *flags_of(flags)]
    environment = {**os.environ, **worker_environment(threads), "PYTHONPATH": str(FOLDER.parent)}
    done = subprocess.run(command, env=environment, stdout=sys.stderr, check=False)
    if done.returncode:
        raise InputError(f"The training must end well, and it ended with status {done.returncode}.")
    return checkpoint


def _judge(forecaster: Forecaster, config: RunConfig, count: int) -> tuple[list[Held], dict[str, float]]:
    """What intervals of both kinds held around both forecasts, and the forecasts' mean squared errors."""
    data = load_data(config)
    calibration = forecaster.checkpoint.calibration
    if calibration is None or config.val_samples is None:
        raise InputError("The checkpoint must hold validation errors. Give --val_samples.")
    season = season_of(data.frequency)
    windows = stratified_subset(data.test, count)
    parts = [
        (batch.x, batch.y, forecast, batch.indices // data.test.windows_per_channel)
        for batch, forecast in forecaster.network.forecasts(data.test, windows)
    ]
    x, y, forecast, columns = (torch.cat(one) for one in zip(*parts, strict=True))
    forecasts = {NETWORK: forecast, NAIVE: last_season(x, config.pred_len, season)}
    around = {
        NETWORK: {kind: intervals_of(calibration, DEFAULT_LEVEL, kind) for kind in KINDS},
        NAIVE: _naive_intervals(data.validation, config, season),
    }
    held = []
    for name, found in forecasts.items():
        for kind in KINDS:
            half_width = around[name][kind].around(x, columns.numpy())
            inside = (found - y).abs().numpy() <= half_width
            held.append(Held(f"{name}, {kind}", inside, np.broadcast_to(2 * half_width, inside.shape), columns.numpy()))
    return held, {name: float((found - y).square().mean()) for name, found in forecasts.items()}


def _naive_intervals(validation: Split, config: RunConfig, season: int) -> dict[str, Intervals]:
    """Intervals around the last season repeated, from the validation windows that the training saw."""
    windows = stratified_subset(validation, config.val_samples or len(validation))
    x, y = validation.gather(windows)
    errors = (last_season(x, config.pred_len, season) - y).abs()
    columns = windows // validation.windows_per_channel
    kinds = {"plain": errors, "scaled": errors / deviation(x)}
    return {
        kind: Intervals(
            DEFAULT_LEVEL,
            kind,
            np.stack(
                [
                    conformal_quantiles(found[columns == column].numpy(), (DEFAULT_LEVEL,))[0]
                    for column in range(validation.channels)
                ]
            ),
        )
        for kind, found in kinds.items()
    }


def last_season(x: Tensor, pred_len: int, season: int) -> Tensor:
    """The last season of windows [windows, seq_len], repeated [windows, pred_len]."""
    return x[:, x.shape[1] - season + torch.arange(pred_len) % season]


def by_column(held: list[Held], columns: list[tuple[str, int]]) -> Table:
    rows = [(name, *_cells(held, lambda one, column=column: one.columns == column)) for name, column in columns]
    return table(("column", *_headings(held)), [*rows, ("all", *_cells(held, lambda one: slice(None)))])


def by_step(held: list[Held]) -> Table:
    steps = held[0].inside.shape[1]
    rows = [(str(step + 1), *_cells(held, lambda one, step=step: (slice(None), step))) for step in range(steps)]
    return table(("step", *_headings(held)), rows)


def _headings(held: list[Held]) -> list[str]:
    return [f"{one.name}: {what}" for what in ("held, %", "width") for one in held]


def _cells(held, chosen) -> list[str]:  # type: ignore[no-untyped-def]
    """Coverage of every interval, then width of every one, over the chosen windows and steps."""
    coverage = [f"{100 * one.inside[chosen(one)].mean():.1f}" for one in held]
    return [*coverage, *(f"{one.width[chosen(one)].mean():.2f}" for one in held)]


def _verdict(held: list[Held]) -> Notes:
    lines = [
        f"{one.name}: {100 * one.inside.mean():.1f} % held where {DEFAULT_LEVEL} % was aimed at, "
        f"mean width {one.width.mean():.2f}"
        for one in held
    ]
    return Notes(tuple(lines))
