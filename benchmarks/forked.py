"""A worker that is forked against one that is started: what it costs to begin, and whether it trains as fast."""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.document import conditions, device_heading
from benchmarks.harness import (
    FOLDER,
    benchmark_parser,
    median_of,
    ratio_of,
    run_settings,
    show_progress,
    use_worker_environment,
)
from benchmarks.record import Section, table
from benchmarks.runner import Benchmark
from search.tune.forked import SERVER_COMMAND
from search.tune.worker_process import WorkerProcess, WorkerSettings
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.contract.job import EventKind, Job
from timellm.machine.environment import choose_device, worker_environment

INTRODUCTION = """# Forked workers

A search forks its workers from a process that has imported what they need; `run_main.py`, and a search that is not on
Linux, start a fresh interpreter. The same time job is run both ways, in pairs, every other pair in reverse. *To the
first step* is from the request to the event before the first training step, the server's own start left out. Forks of
one server share one layout of addresses: the spread is the standard deviation, between processes, of the mean seconds
of a step."""

KINDS = {"started": None, "forked": SERVER_COMMAND}


class Forked(Benchmark):
    """Runs one job in forked and in started workers."""

    name = "forked"
    title = "Runs one job in forked and in started workers."
    introduction = INTRODUCTION

    def parser(self) -> argparse.ArgumentParser:
        """Its flags."""
        return benchmark_parser(self.name, self.title, repeats=8)

    def measure(self, arguments: argparse.Namespace) -> list[Section]:
        """The section of this device and model."""
        use_worker_environment(arguments.threads)
        own = {"llm_layers": 6, "batch_size": 4, "prompt_prefix": "reuse", "train_samples": 256, "val_samples": 16}
        config = run_settings(arguments, **own)
        found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
        with tempfile.TemporaryDirectory() as folder:
            for number in range(arguments.repeats + 1):  # the first pair warms the caches and starts the server
                for kind in list(KINDS) if number % 2 else list(reversed(KINDS)):
                    result = run_worker(config, arguments.threads, Path(folder) / f"{kind}{number}", kind)
                    found[kind] += [result] if number else []
                show_progress(f"pair {number} of {arguments.repeats}: {result['to_first_step']:.2f} s")
        device, label = choose_device(config), found["started"][0]["backbone"]
        rows = [(kind, *row(results)) for kind, results in found.items()]
        columns = [[result[name] for result in found[kind]] for name in _COMPARED for kind in KINDS]
        start, step = ratio_of(*columns[:2]), ratio_of(*columns[2:])
        rows.append(("started / forked", f"{start:.2f}", f"{step:.3f}", "", ""))
        headings = ("", "to the first step, s", "seconds per step", "spread between processes", "peak memory, GiB")
        note = f"Run: {label}, {config.llm_layers} layers, {config.data}, batch {config.batch_size}, {config.precision}"
        return [Section(device_heading(device, label), (conditions(device, note), table(headings, rows)))]


_COMPARED = ("to_first_step", "seconds_per_step")


def row(results: list[dict[str, Any]]) -> tuple[str, ...]:
    """What the processes of one kind measured: start, step, the step's spread between them, memory.

    Args:
        results: One per process, with `to_first_step`, `seconds_per_step` and `peak_memory_gib`.
    """
    starts, steps, memory = ([result[name] for result in results] for name in (*_COMPARED, "peak_memory_gib"))
    spread = statistics.stdev(steps) / statistics.fmean(steps)
    return f"{median_of(starts):.2f}", f"{median_of(steps):.3f}", f"{spread:.1%}", f"{median_of(memory):.2f}"


def run_worker(config: RunConfig, threads: int, folder: Path, kind: str, timed_steps: int = 12) -> dict[str, Any]:
    """What one worker measures.

    Args:
        config: Its run.
        threads: CPU threads.
        folder: Where its files go; must not exist.
        kind: One of KINDS.
        timed_steps: Steady steps that it takes.

    Returns:
        Its result, and `to_first_step`: seconds from the request to the event before the first training step.

    Raises:
        InputError: If it does not complete.
    """
    environment = worker_environment(threads)
    settings = WorkerSettings(project_root=str(FOLDER.parent), environment=environment, server=KINDS[kind])
    job = Job(
        config=config.to_dict(),
        run_dir=str(folder),
        threads=threads,
        clock="time",
        min_timed_steps=timed_steps,
        max_timing_seconds=12.0,
    )
    asked, began = time.time(), None
    worker = WorkerProcess(settings, job)
    try:
        while worker.is_running():
            if any(event.get("event") == EventKind.TRAINING for event in worker.new_events()):
                began = began or time.time()
            time.sleep(0.02)
        result = worker.outcome()
    finally:
        worker.kill("The benchmark ended.")
    if result["state"] != "complete" or began is None:
        raise InputError(f"The run must complete, but ended as {result['state']}: {result.get('error')}")
    return {**result, "to_first_step": began - asked}
