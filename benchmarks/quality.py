"""Validation error on ETTh1 against naive forecasts, in several seeds and precisions."""

import argparse
import json
import math
import statistics
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.document import conditions, device_heading, rounding_notes
from benchmarks.harness import benchmark_parser, run_settings, show_progress, train_in_worker, whole_numbers
from benchmarks.record import Notes, Part, Section, Table, table
from benchmarks.runner import Benchmark
from timellm.check import check_run
from timellm.contract.columns import State
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.data import load_data, stratified_subset
from timellm.data.naive import naive_errors
from timellm.machine.environment import choose_device

REQUIRED_PERCENT = 10
REQUIRED_BELOW = ("last value", "window mean")
"""Forecasts that a run must beat by REQUIRED_PERCENT; others are shown beside them."""
DEFAULTS: dict[str, Any] = {
    "data": "ETTh1",
    "prompt_prefix": "reuse",
    "learning_rate": 1e-3,
    "lradj": "TST",
    "train_samples": 16_000,
    "eval_batch_size": 128,
}
"""500 steps of 32 windows, one cycle of the learning rate; what a flag says wins."""
INTRODUCTION = """# Quality

Does training learn, and does a lower precision cost accuracy? Each row is a training run in a process of its own, as a
trial of a search runs it. Errors are mean squared errors in scaled units over every validation window and channel,
beside forecasts that need no training: the last value, the window's mean, and the last day repeated."""


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        precision: Its precision.
        seed: Its seed.
        result: What its process wrote.
        was_kept: Whether an earlier command trained it.
    """

    precision: str
    seed: int
    result: dict[str, Any]
    was_kept: bool = False

    @property
    def val_mse(self) -> float:
        """Validation error of the run."""
        return self.result["val_mse"]


class Quality(Benchmark):
    """Trains in several seeds and compares with naive forecasts."""

    name = "quality"
    title = "Trains in several seeds and compares with naive forecasts."
    introduction = INTRODUCTION
    gpu_flags = "--root_path DATA"

    def parser(self) -> argparse.ArgumentParser:
        """Its flags."""
        parser = benchmark_parser(self.name, self.title)
        parser.add_argument("--seeds", default="2021,2022,2023", help="seeds, comma-separated (2021,2022,2023)")
        parser.add_argument("--precisions", default="fp32,bf16", help="precisions, comma-separated (fp32,bf16)")
        parser.add_argument("--jobs", type=int, default=1, help="runs at the same time, each on --threads threads (1)")
        parser.add_argument("--runs", default=None, help="folder that keeps finished runs, which are not trained again")
        return parser

    def measure(self, arguments: argparse.Namespace) -> list[Section]:
        """The section of this device and model."""
        config = run_settings(arguments, **DEFAULTS)
        folder = Path(arguments.runs) if arguments.runs else None
        check_run(config)
        device = choose_device(config)
        precisions = arguments.precisions.split(",")
        plan = [(precision, seed) for precision in precisions for seed in whole_numbers("seeds", arguments.seeds)]

        def train(precision: str, seed: int) -> Trained:
            run = kept_or_trained(config.replace(precision=precision, seed=seed), arguments.threads, folder)
            show_progress(f"{precision}, seed {seed}: val mse {run.val_mse:.4f} in {run.result['total_seconds']:.0f} s")
            return run

        with ThreadPoolExecutor(arguments.jobs) as pool:
            runs = list(pool.map(train, *zip(*plan, strict=True)))
        torch.set_num_threads(arguments.threads)
        steps = math.ceil(runs[0].result["train_samples"] / config.global_batch)
        heading = device_heading(device, runs[0].result["backbone"], config.data, f"{steps} steps")
        return [Section(heading, _body(runs, config, device))]


def kept_or_trained(config: RunConfig, threads: int, folder: Path | None) -> Trained:
    """The run of these settings: the one that the folder keeps, else a new one, kept there as soon as it has ended."""
    kept = folder / f"{config.precision}-{config.seed}.json" if folder else None
    if kept and kept.is_file():
        record = json.loads(kept.read_text())
        if record["settings"] == config.to_dict():
            return Trained(config.precision, config.seed, record["result"], was_kept=True)
    result = train(config, threads)
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({"settings": config.to_dict(), "result": result}))
    return Trained(config.precision, config.seed, result)


def train(config: RunConfig, threads: int) -> dict[str, Any]:
    """Train in a worker process, as a trial of a search does, and return its result."""
    show_progress(f"training: {config.precision}, seed {config.seed}")
    result = train_in_worker(config, threads)
    if result["state"] != State.COMPLETE:
        raise InputError(f"A run must end complete, got {result['state']} with seed {config.seed}: {result['error']}")
    return result


def _body(runs: list[Trained], config: RunConfig, device: torch.device) -> tuple[Part, ...]:
    data = load_data(config)
    naive = naive_errors(
        data.validation, stratified_subset(data.validation, runs[0].result["val_samples"]), data.frequency
    )
    steps = math.ceil(runs[0].result["train_samples"] / config.global_batch)
    counted = runs[0].result["val_samples"]
    head = conditions(
        device,
        f"Run: {runs[0].result['backbone']}, {config.llm_layers} layers, {config.data} {config.seq_len} -> "
        f"{config.pred_len}, {steps} steps of {config.global_batch} windows, learning rate {config.learning_rate:g}, "
        f"{config.lradj}, prompt {config.prompt}, prompt_prefix {config.prompt_prefix}",
        f"Validation: {counted} of {len(data.validation)} windows; "
        + ", ".join(f"{name} {error:.4f}" for name, error in naive.items()),
        f"Trained by this command: {sum(not run.was_kept for run in runs)} of {len(runs)} runs; the others were kept",
        *rounding_notes(run.precision for run in runs if _multiplies_otherwise(run)),
    )
    return head, _runs_table(runs, naive), _verdict(runs, naive)


def _multiplies_otherwise(run: Trained) -> bool:
    """Whether the run's products were computed in another type than its precision's."""
    return run.result.get("matmul_dtype", run.precision) != run.precision


def _runs_table(runs: list[Trained], naive: dict[str, float]) -> Table:
    rows = []
    for run in runs:
        below = [f"{100 * (1 - run.val_mse / error):.1f} %" for error in naive.values()]
        result = run.result
        rows.append(
            (
                f"{run.precision}, seed {run.seed}",
                f"{run.val_mse:.4f}",
                f"{result['val_mae']:.4f}",
                *below,
                f"{result['seconds_per_step_median']:.2f}",
                f"{result['total_seconds'] / 60:.1f}",
            )
        )
    columns = [f"below {name}" for name in naive]
    return table(("run", "val MSE", "val MAE", *columns, "s per step", "minutes in all"), rows)


def _verdict(runs: list[Trained], naive: dict[str, float]) -> Notes:
    """Whether every run is far enough below every naive forecast, and where bf16 lies in the spread of fp32."""
    limit = min(naive[name] for name in REQUIRED_BELOW) * (1 - REQUIRED_PERCENT / 100)
    worst = max(run.val_mse for run in runs)
    verdict = "Every run is" if worst <= limit else "NOT every run is"
    figures = f"worst {worst:.4f}, limit {limit:.4f}"
    lines = [f"{verdict} at least {REQUIRED_PERCENT} % below {' and '.join(REQUIRED_BELOW)}: {figures}."]
    groups = {name: [run.val_mse for run in runs if run.precision == name] for name in ("fp32", "bf16")}
    for name, errors in groups.items():
        if len(errors) > 1:
            spread = f"{min(errors):.4f} to {max(errors):.4f}, standard deviation {statistics.stdev(errors):.4f}"
            lines.append(f"{name}: mean {statistics.fmean(errors):.4f}, {spread} over {len(errors)} seeds.")
    if all(len(errors) > 1 for errors in groups.values()):
        difference = statistics.fmean(groups["bf16"]) - statistics.fmean(groups["fp32"])
        reach = max(groups["fp32"]) - min(groups["fp32"])
        place = "within" if abs(difference) <= reach else "outside"
        lines.append(f"bf16's mean differs by {difference:+.4f}, {place} fp32's seed-to-seed range of {reach:.4f}.")
    return Notes(tuple(lines))
