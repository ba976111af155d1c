"""Every lever of the acceleration guide, measured beside what it promises."""

import argparse
import time
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.document import conditions, device_heading
from benchmarks.harness import (
    Interval,
    benchmark_parser,
    median_of,
    ratio_of,
    run_settings,
    show_progress,
    use_worker_environment,
)
from benchmarks.levers_list import NOISE, Lever, guide_base, guide_rows, levers
from benchmarks.levers_timing import BASE, Outcome, Timed, Timer, train_all
from benchmarks.record import Notes, Section, Table, table
from benchmarks.runner import Benchmark
from benchmarks.series import data_label, made_settings
from results.analysis.guide import EPOCH_WORDS
from timellm.check import check_run
from timellm.contract.columns import State
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.data import load_data
from timellm.machine.environment import choose_device

BASES = ("recompute", "reuse")
TABLES = ("guide", "levers")
STEPS_PER_GPU_MEASUREMENT = 20
DEFAULTS: dict[str, Any] = {"learning_rate": 1e-3, "lradj": "constant", "val_samples": 256, "num_workers": 0}
"""A learning rate at which few steps show; what a flag says wins."""
HEADINGS = (
    "seconds per epoch",
    "times the base",
    "the guide expects",
    "val MSE",
    "peak memory, GiB",
    "verdict",
)
INTRODUCTION = """# Levers

Every lever of the acceleration guide and the project's own, one at a time, against a base that differs in nothing
else: on top of `recompute`, as published, to compare with the guide, and on top of `reuse`. Lever and base are timed
in turns, each table row against the base of its own rounds: in one process, and those that need loader workers,
DeepSpeed, compiled code or scaled gradients in processes of their own, one at a time. Work is compared window by
window. Seconds and ratios are medians with 95 % intervals; a lever pays where its whole interval is above 1, does not
pay here where it is below, and is within noise where the interval holds 1 or the median is no further from 1 than the
base timed against itself reaches. The guide counts the batches of all three splits as an epoch and trains GPT-2 on a
GPU; its ratios are what compares. The validation error is that of a run in a process of its own, as a trial of a
search, on equally many training windows, judged on one subset of validation windows; peak memory is that run's."""


@dataclass(frozen=True, kw_only=True)
class LeverTable:
    """One table: a base, its rows, and what is known of them.

    Attributes:
        title: First heading of the table.
        base: The run without a lever.
        base_expects: What the guide says of the base.
        epoch_windows: Training windows of the data set.
        rows: The levers.
        times: Outcome of each timed lever.
        trained: Result of each training, `base` among them.
        has_error: Whether they were trained for their validation error, not for their memory alone.
    """

    title: str
    base: RunConfig
    base_expects: str
    epoch_windows: int
    rows: list[Lever]
    times: dict[str, Outcome]
    trained: dict[str, dict[str, Any]]
    has_error: bool


class Levers(Benchmark):
    """Times every lever against its base and trains it on few windows."""

    name = "levers"
    title = "Times every lever against its base and trains it on few windows."
    introduction = INTRODUCTION
    gpu_flags = "--llm_model gpt2 --llm_weights random"

    def parser(self) -> argparse.ArgumentParser:
        """Its flags."""
        parser = benchmark_parser(self.name, self.title, repeats=3)
        parser.add_argument("--steps", type=int, default=None, help="steps of one measurement (CPU 1, GPU 20)")
        parser.add_argument("--bases", default=",".join(BASES), help="bases, comma-separated (recompute,reuse)")
        parser.add_argument("--tables", default=",".join(TABLES), help="tables, comma-separated (guide,levers)")
        parser.add_argument("--levers", default=None, help="rows of the tables, separated by semicolons (default: all)")
        parser.add_argument("--mse_samples", type=int, default=256, help="windows trained before an error (256)")
        parser.add_argument(
            "--mse_bases",
            default="reuse",
            help="bases on which errors are trained, comma-separated; memory alone (reuse)",
        )
        parser.add_argument("--jobs", type=int, default=None, help="trainings at the same time (CPU 2, GPU 1)")
        return parser

    def measure(self, arguments: argparse.Namespace) -> list[Section]:
        """The section of this device and model."""
        began = time.monotonic()
        bases, tables = _listed("bases", arguments.bases, BASES), _listed("tables", arguments.tables, TABLES)
        errors = _listed("mse_bases", arguments.mse_bases, BASES)
        use_worker_environment(arguments.threads)
        config = run_settings(arguments, **DEFAULTS, **made_settings(vars(arguments)))
        device = choose_device(config)
        label = check_run(config.replace(prompt_prefix=bases[0]))["backbone"]["label"]
        steps = arguments.steps or (1 if device.type == "cpu" else STEPS_PER_GPU_MEASUREMENT)
        timer = Timer(device=device, threads=arguments.threads, rounds=arguments.repeats, steps=steps)
        measured = [
            _measure(name, config.replace(prompt_prefix=prefix), timer, arguments, has_error=prefix in errors)
            for prefix in bases
            for name in tables
        ]
        heading = device_heading(device, label, f"batch {config.batch_size}")
        minutes = (time.monotonic() - began) / 60
        head = _conditions(config, timer, arguments, label, minutes)
        return [Section(heading, (head, *map(_table, measured)))]


def _listed(flag: str, text: str, known: tuple[str, ...]) -> list[str]:
    names = [word.strip() for word in text.split(",")]
    if wrong := [name for name in names if name not in known]:
        raise InputError(f"--{flag} must be of {', '.join(known)}, comma-separated, got {', '.join(wrong)}.")
    return [name for name in known if name in names]


def _measure(
    name: str, config: RunConfig, timer: Timer, arguments: argparse.Namespace, *, has_error: bool
) -> LeverTable:
    """Time the levers of a table and train them: for their errors, or one step for the memory that is not known."""
    base = guide_base(config) if name == "guide" else config
    amp = "bf16" if timer.device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    rows = _chosen(guide_rows(base, amp) if name == "guide" else levers(base), arguments.levers)
    show_progress(f"{base.prompt_prefix}: the table of {name}, {len(rows)} rows")
    times = timer.time(base, rows)
    jobs = arguments.jobs or (1 if timer.device.type == "cuda" else min(2, arguments.threads))
    threads = max(1, arguments.threads // jobs)
    wanted = [row for row in rows if not isinstance(times.get(row.name), str)]
    if has_error:
        trained = train_all(base, wanted, arguments.mse_samples, threads, jobs, min_timed_steps=0)
    else:
        wanted = [row for row in wanted if row.is_timed and not _knows_memory(times[row.name])]
        trained = train_all(base.replace(val_samples=base.batch_size), wanted, 0, threads, jobs, min_timed_steps=0)
    title = f"{'the guide on' if name == 'guide' else 'levers on'} {base.prompt_prefix}"
    return LeverTable(
        title=title,
        base=base,
        base_expects=EPOCH_WORDS["baseline"] if name == "guide" else "-",
        epoch_windows=len(load_data(base).train),
        rows=rows,
        times=times,
        trained=trained,
        has_error=has_error,
    )


def _chosen(rows: list[Lever], names: str | None) -> list[Lever]:
    if names is None:
        return rows
    wanted = [name.strip() for name in names.split(";")]
    return [row for row in rows if row.name in wanted]


def _knows_memory(outcome: Outcome) -> bool:
    return isinstance(outcome, Timed) and outcome.memory_gib is not None


def _conditions(config: RunConfig, timer: Timer, arguments: argparse.Namespace, label: str, minutes: float) -> Notes:
    counted = "1 step" if timer.steps == 1 else f"{timer.steps} steps"
    return conditions(
        timer.device,
        f"Model: {label}, {config.llm_layers} layers, {config.seq_len} -> {config.pred_len}, batch "
        f"{config.batch_size}, prompt {config.prompt}, {data_label(config.data, config.data_path)}",
        f"Times: {timer.rounds} rounds of {counted}, one less where the batch or the precision makes steps longer",
        f"Errors: {arguments.mse_samples} training windows, learning rate {config.learning_rate:g}, {config.lradj}, "
        f"{config.val_samples} validation windows, trained on top of {arguments.mse_bases} (reuse computes "
        "the same numbers as recompute); elsewhere runs of one step, for their memory",
        f"Took {minutes:.0f} minutes",
    )


def _table(section: LeverTable) -> Table:
    rows = [_base_row(section), *(_row(section, row) for row in section.rows)]
    return table((section.title, *HEADINGS), rows)


def _base_row(section: LeverTable) -> tuple[str, ...]:
    measured = [outcome for outcome in section.times.values() if isinstance(outcome, Timed)]
    plain = [
        outcome
        for row in section.rows
        if isinstance(outcome := section.times.get(row.name), Timed) and not row.counts_validation
    ]
    readings = [seconds for outcome in plain or measured for seconds in outcome.base]
    epoch = _epoch(section, median_of(readings)) if readings else "-"
    mse, memory = _trained_cells(section, BASE)
    return ("base", epoch, "1", section.base_expects, mse, memory, "-")


def _row(section: LeverTable, row: Lever) -> tuple[str, ...]:
    outcome = section.times.get(row.name)
    mse, memory = _trained_cells(section, row.name)
    if isinstance(outcome, str):
        return (row.name, "-", "-", row.expects, "-", "-", f"not run: {outcome}")
    if outcome is None:
        return (row.name, "-", "-", row.expects, mse, memory, row.note)
    ratio = ratio_of(outcome.base, outcome.seconds)
    if memory == "-" and outcome.memory_gib is not None:
        memory = f"{outcome.memory_gib:.2f}"
    notes = [_verdict(ratio, _noise(section)), row.note]
    if outcome.compile_seconds:
        notes.append(f"compiles {outcome.compile_seconds:.0f} s")
    said = "; ".join(note for note in notes if note)
    return (row.name, _epoch(section, median_of(outcome.seconds)), f"{ratio:.2f}", row.expects, mse, memory, said)


def _trained_cells(section: LeverTable, name: str) -> tuple[str, str]:
    """Validation error and peak memory of a training; its state where it did not end complete."""
    result = section.trained.get(name)
    if result is None:
        return "-", "-"
    memory = f"{result['peak_memory_gib']:.2f}" if result.get("peak_memory_gib") else "-"
    if result["state"] != State.COMPLETE:
        return result["state"], memory
    return (f"{result['val_mse']:.4f}" if section.has_error else "-"), memory


def _epoch(section: LeverTable, per_window: Interval) -> str:
    """Seconds per epoch; whole seconds where they are many."""
    epoch = per_window.scaled(section.epoch_windows)
    return f"{epoch:.0f}" if epoch.median >= 100 else f"{epoch:.2f}"


def _noise(section: LeverTable) -> float:
    """How far from 1 the base's ratio to itself reaches; 0 where it was not timed."""
    outcome = section.times.get(NOISE)
    if not isinstance(outcome, Timed):
        return 0.0
    ratio = ratio_of(outcome.base, outcome.seconds)
    return max(ratio.high - 1, 1 - ratio.low) if ratio.high < float("inf") else 0.0


def _verdict(ratio: Interval, noise: float) -> str:
    if abs(ratio.median - 1) <= noise or ratio.low <= 1 <= ratio.high:
        return "within noise"
    return "pays" if ratio.low > 1 else "does not pay here"
