"""Projected seconds per epoch against epochs really trained."""

import argparse
import math
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.document import conditions, device_heading
from benchmarks.harness import (
    benchmark_parser,
    run_settings,
    show_progress,
    train_in_worker,
    use_worker_environment,
)
from benchmarks.projection_cases import Epoch, Setting, chosen_settings, made_epoch
from benchmarks.record import Notes, Section, Table, table
from benchmarks.runner import Benchmark
from benchmarks.series import data_label
from timellm.check import check_run
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.data import load_data
from timellm.estimate.interleaved import measure_interleaved
from timellm.estimate.measurement import MeasurePlan
from timellm.estimate.projection import estimates
from timellm.machine.environment import choose_device
from timellm.measure.timing import PROCESS_SPREAD

GOAL_PERCENT = 3.0
DEFAULTS: dict[str, Any] = {"llm_layers": 2, "val_samples": 64, "train_epochs": 1, "num_workers": 0}
"""What a flag says wins."""
INTRODUCTION = f"""# Projection

What a search says of an epoch without training one (a trial with `--fidelity SAMPLES`), and what
`estimate_training_time.py` says, against an epoch that was really trained: a whole run of the same settings on the same
data, its steps timed one by one. For each setting the order is: projection, whole run, estimate, projection, each in a
process of its own, so that a machine that drifts shows as two projections that differ. Errors are signed, relative to
the epoch that was trained; the goal is {GOAL_PERCENT:g} %. Intervals are the 95 % intervals that are reported."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One setting's figures."""

    name: str
    trained: Epoch
    before: Epoch
    after: Epoch
    estimate: Epoch


class Projection(Benchmark):
    """Compares projected epochs with epochs that are really trained."""

    name = "projection"
    title = "Compares projected epochs with epochs that are really trained."
    introduction = INTRODUCTION
    gpu_flags = (
        "--llm_model gpt2 --llm_weights random --llm_layers 6 --epoch_windows 65536 --samples 16384 "
        "--measure_batches 400"
    )

    def parser(self) -> argparse.ArgumentParser:
        """Its flags."""
        parser = benchmark_parser(self.name, self.title)
        add = parser.add_argument
        add(
            "--epoch_windows",
            type=int,
            default=2048,
            help="training windows of the made series, a multiple of 4 (2048)",
        )
        add("--samples", type=int, default=512, help="training windows of a projection (512)")
        add("--measure_batches", type=int, default=30, help="training batches of an estimate (30)")
        add("--settings", default=None, help="names of settings, separated by semicolons (default: all)")
        return parser

    def measure(self, arguments: argparse.Namespace) -> list[Section]:
        """The section of this device and model."""
        began = time.monotonic()
        use_worker_environment(arguments.threads)
        config = run_settings(arguments, **DEFAULTS, **made_epoch(vars(arguments), arguments.epoch_windows))
        device = choose_device(config)
        settings = chosen_settings(config, arguments.settings)
        label = _check(config, settings, arguments.samples)
        compared = [_compare(setting, config, arguments) for setting in settings]
        heading = device_heading(device, label, f"{config.llm_layers} layers")
        head = conditions(
            device,
            f"Run: {label}, {config.llm_layers} layers, {config.seq_len} -> {config.pred_len}, "
            f"{data_label(config.data, config.data_path)}, {len(load_data(config).train)} training windows",
            f"Projection: {arguments.samples} windows; estimate: {arguments.measure_batches} batches",
            f"Took {(time.monotonic() - began) / 60:.0f} minutes",
        )
        return [Section(heading, (head, _projection_table(compared), _estimate_table(compared), _verdict(compared)))]


def _check(config: RunConfig, settings: list[Setting], samples: int) -> str:
    """The language model's label, once every setting has been held against it.

    Raises:
        InputError: For settings that do not fit, or a projection that is longer than the epoch.
    """
    windows = len(load_data(config).train)
    if not 1 <= samples < windows:
        raise InputError(f"samples must be below the epoch's {windows} windows, got {samples}.")
    labels = [check_run(config.replace(**setting.changes))["backbone"]["label"] for setting in settings]
    return labels[0]


def _compare(setting: Setting, base: RunConfig, arguments: argparse.Namespace) -> Comparison:
    config, threads = base.replace(**setting.changes), arguments.threads
    projected = config.replace(train_samples=arguments.samples)

    def train(kind: str, of: RunConfig) -> Epoch:
        epoch = Epoch.of(f"{setting.name}, {kind}", train_in_worker(of, threads))
        show_progress(f"{setting.name}, {kind}: {epoch} s")
        return epoch

    before = train("projection before", projected)
    trained = train("whole run", config)
    estimate = _estimate(setting.name, config, arguments.measure_batches, threads)
    after = train("projection after", projected)
    return Comparison(name=setting.name, trained=trained, before=before, after=after, estimate=estimate)


def _estimate(name: str, config: RunConfig, batches: int, threads: int) -> Epoch:
    """As `estimate_training_time.py` measures and concludes."""
    plan = MeasurePlan.of(batches, max(1, batches // 10), [config])
    measured = measure_interleaved([config], plan, threads, lambda line: None)
    epoch = Epoch.of(f"{name}, estimate", estimates([config], measured)[0].to_dict())
    show_progress(f"{name}, estimate: {epoch} s")
    return epoch


def _projection_table(compared: list[Comparison]) -> Table:
    rows = [
        (
            this.name,
            f"{this.trained.seconds:.2f}",
            str(this.before),
            _error(this.before, this.trained),
            str(this.after),
            _error(this.after, this.trained),
            f"{_mean_error(this):+.1f} %",
        )
        for this in compared
    ]
    headings = (
        "projection",
        "epoch trained, s",
        "before it, s",
        "error",
        "after it, s",
        "error",
        "error of their mean",
    )
    return table(headings, rows)


def _estimate_table(compared: list[Comparison]) -> Table:
    rows = [
        (this.name, f"{this.trained.seconds:.2f}", str(this.estimate), _error(this.estimate, this.trained))
        for this in compared
    ]
    return table(("estimate_training_time.py", "epoch trained, s", "estimate, s", "error"), rows)


def _error(epoch: Epoch, trained: Epoch) -> str:
    return f"{epoch.error_percent(trained):+.1f} %, {'covers' if epoch.covers(trained) else 'does not cover'}"


def _mean_error(this: Comparison) -> float:
    return (this.before.error_percent(this.trained) + this.after.error_percent(this.trained)) / 2


def _verdict(compared: list[Comparison]) -> Notes:
    kinds = {
        "Projections": [(epoch, this.trained) for this in compared for epoch in (this.before, this.after)],
        "Estimates": [(this.estimate, this.trained) for this in compared],
    }
    lines = []
    for kind, pairs in kinds.items():
        errors = [abs(epoch.error_percent(trained)) for epoch, trained in pairs]
        within = sum(error <= GOAL_PERCENT for error in errors)
        covered = sum(epoch.covers(trained) for epoch, trained in pairs)
        lines.append(
            f"{kind}: {within} of {len(pairs)} within {GOAL_PERCENT:g} %, largest error {max(errors):.1f} %; "
            f"the interval covers in {covered} of {len(pairs)}."
        )
    logs = [math.log(this.after.seconds / this.before.seconds) for this in compared]
    spread = math.sqrt(sum(log**2 for log in logs) / 2 / len(logs))
    lines.append(
        f"Two projections of one setting differ by up to {100 * max(map(abs, logs)):.1f} %: a standard deviation of "
        f"{100 * spread:.1f} % between processes, where the intervals count on {100 * PROCESS_SPREAD:g} %."
    )
    return Notes(tuple(lines))
