"""Whether a trial's place in a search changes its clock: one configuration first and last."""

import argparse
import dataclasses
import math
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.document import conditions, device_heading
from benchmarks.harness import (
    FOLDER,
    Interval,
    benchmark_parser,
    run_settings,
    show_progress,
    use_worker_environment,
)
from benchmarks.record import Section, table
from benchmarks.runner import Benchmark
from search.tune.worker_process import WorkerProcess, WorkerSettings
from timellm.cache import CACHE_VARIABLE
from timellm.contract.columns import State
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.contract.job import Job
from timellm.machine.environment import choose_device, worker_environment

INTRODUCTION = """# Order effect

Whether the place of a trial in a search changes its clock: caches that the first trial fills and kernels that it
chooses must not favour later ones. In every round one configuration is trained first and last, with four others
between, each in a fresh worker process as in a search; a round starts with an empty `TIMELLM_CACHE_DIR`. Seconds are
projected to an epoch, with the 95 % interval of the run itself; a ratio's interval joins those of its two runs, and the
mean's those of all rounds. Above 1 the last place is faster."""

BETWEEN: tuple[dict[str, Any], ...] = (
    {"precision": "bf16"},
    {"attention": "sdpa"},
    {"llm_layers": 1},
    {"accumulation_steps": 2},
)
"""What differs in the runs between the first and the last."""


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A ratio of two times as a logarithm, with its standard error."""

    log: float
    error: float

    @property
    def interval(self) -> Interval:
        """The ratio with its 95 % interval."""
        half = 1.96 * self.error
        return Interval(math.exp(self.log), math.exp(self.log - half), math.exp(self.log + half))


class OrderEffect(Benchmark):
    """Trains one configuration first and last."""

    name = "order_effect"
    title = "Trains one configuration first and last."
    introduction = INTRODUCTION
    gpu_flags = "--llm_model gpt2 --llm_weights random --train_samples 4096"

    def parser(self) -> argparse.ArgumentParser:
        """Its flags."""
        parser = benchmark_parser(self.name, self.title)
        parser.add_argument("--rounds", type=int, default=2, help="times that the order is run through (2)")
        return parser

    def measure(self, arguments: argparse.Namespace) -> list[Section]:
        """The section of this device and model."""
        if arguments.rounds < 1:
            raise InputError(f"--rounds must be at least 1, got {arguments.rounds}.")
        use_worker_environment(arguments.threads)
        own = {"llm_layers": 2, "batch_size": 8, "prompt_prefix": "reuse", "train_samples": 400, "val_samples": 32}
        config = run_settings(arguments, **own)
        device = choose_device(config)
        config = config.replace(device=config.device if config.device != "auto" else device.type)
        rounds = [run_round(config, arguments.threads, number + 1) for number in range(arguments.rounds)]
        rows = [
            (
                f"round {number}",
                _seconds(first),
                _seconds(last),
                f"{ratio_of_runs(first, last).interval:.3f}",
                _quality(first, last),
            )
            for number, (first, last) in enumerate(rounds, start=1)
        ]
        whole = mean_of([ratio_of_runs(first, last) for first, last in rounds])
        rows.append(("geometric mean", "", "", f"{whole.interval:.3f}", ""))
        headings = ("", "first, s per epoch", "last, s per epoch", "first / last", "timing of both")
        label = rounds[0][0]["backbone"]
        note = (
            f"Run: {label}, {config.llm_layers} layers, {config.data}, {config.train_samples} windows, "
            f"batch {config.batch_size}, {config.precision}, {config.prompt_prefix}; between: "
            + "; ".join(", ".join(f"{name} {value}" for name, value in changes.items()) for changes in BETWEEN)
        )
        return [Section(device_heading(device, label), (conditions(device, note), table(headings, rows)))]


def run_round(config: RunConfig, threads: int, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The results of the first and the last run of a round.

    Raises:
        InputError: If one of the two does not complete.
    """
    configs = [config, *(config.replace(**changes) for changes in BETWEEN), config]
    with tempfile.TemporaryDirectory() as folder:
        results = []
        for place, one in enumerate(configs, start=1):
            results.append(run_once(one, threads, Path(folder), f"t{place:04d}"))
            show_progress(f"round {number}, run {place} of {len(configs)}: {results[-1]['state']}")
    for result in (results[0], results[-1]):
        if result["state"] != State.COMPLETE or not result.get("seconds_per_epoch_high"):
            raise InputError(
                f"The repeated run must complete and time several steps, but ended as {result['state']}: "
                f"{result.get('error')} Use more --train_samples."
            )
    return results[0], results[-1]


def run_once(config: RunConfig, threads: int, folder: Path, name: str) -> dict[str, Any]:
    """What a fresh worker process measures."""
    environment = {**worker_environment(threads), CACHE_VARIABLE: str(folder / "cache")}
    settings = WorkerSettings(project_root=str(FOLDER.parent), environment=environment)
    job = Job(config=config.to_dict(), run_dir=str(folder / name), threads=threads)
    worker = WorkerProcess(settings, job)
    try:
        while worker.is_running():
            worker.new_events()
            time.sleep(0.1)
        return worker.outcome()
    finally:
        worker.kill("The benchmark ended.")


def ratio_of_runs(first: dict[str, Any], last: dict[str, Any]) -> Ratio:
    """Seconds of the first run over those of the last, from their intervals."""
    errors = [
        math.log(result["seconds_per_epoch_high"] / result["seconds_per_epoch_low"]) / (2 * 1.96)
        for result in (first, last)
    ]
    return Ratio(math.log(first["seconds_per_epoch"] / last["seconds_per_epoch"]), math.hypot(*errors))


def mean_of(ratios: list[Ratio]) -> Ratio:
    """Their geometric mean."""
    count = len(ratios)
    return Ratio(sum(ratio.log for ratio in ratios) / count, math.hypot(*(ratio.error for ratio in ratios)) / count)


def _seconds(result: dict[str, Any]) -> str:
    low, high = result["seconds_per_epoch_low"], result["seconds_per_epoch_high"]
    return f"{Interval(result['seconds_per_epoch'], low, high):.0f}"


def _quality(first: dict[str, Any], last: dict[str, Any]) -> str:
    return f"{first['timing_quality']}, {last['timing_quality']}"
