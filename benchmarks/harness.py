"""What every benchmark shares: its flags, one environment, interleaved timing, ratios with intervals."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from timellm.arguments import build_parser, config_from
from timellm.contract.columns import State
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError, last_line
from timellm.contract.job import Job
from timellm.contract.layout import TrialFolder
from timellm.machine.environment import describe_machine, synchronize, worker_environment
from timellm.measure.timing import RESAMPLES

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Interval:
    """A median with its 95 % interval."""

    median: float
    low: float
    high: float

    def scaled(self, factor: float) -> "Interval":
        """The same in other units."""
        return Interval(self.median * factor, self.low * factor, self.high * factor)

    def __format__(self, spec: str) -> str:
        """Median and ends, each with this format; the median alone where nothing is known of the spread."""
        if self.high == float("inf"):
            return format(self.median, spec)
        return f"{self.median:{spec}} ({self.low:{spec}} to {self.high:{spec}})"


def benchmark_parser(name: str, description: str, *, repeats: int | None = None) -> argparse.ArgumentParser:
    """A parser of every flag of a run and of those that all timings have.

    Args:
        name: Name of the benchmark.
        description: What it measures.
        repeats: Default of --repeats; None for a benchmark without it.
    """
    parser = build_parser(f"benchmarks {name}", description)
    group = parser.add_argument_group("Benchmark")
    group.add_argument("--threads", type=int, default=describe_machine()["cores"], help="CPU threads (all cores)")
    if repeats is not None:
        group.add_argument("--repeats", type=int, default=repeats, help=f"measurements of each variant ({repeats})")
    return parser


def run_settings(arguments: argparse.Namespace, **defaults: object) -> RunConfig:
    """The run that the flags describe, with a benchmark's own defaults for what is not given."""
    return config_from(argparse.Namespace(**{**defaults, **vars(arguments)}))


def use_worker_environment(threads: int) -> None:
    """Start this process again with a training process's environment, unless it has it.

    The allocator is the same for everything that is compared: with glibc's defaults, page faults of large temporaries
    slow down most whatever allocates most, and flatter its opponent.

    Args:
        threads: CPU threads of the process.
    """
    wanted = worker_environment(threads)
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **wanted})
    torch.set_num_threads(threads)


def time_interleaved(
    actions: Mapping[str, Callable[[], object]], device: torch.device, *, repeats: int, warmup: int
) -> dict[str, list[float]]:
    """Seconds of each action, all of them in every round, every other round in reverse: A B, B A, A B.

    Args:
        actions: What to time, by name.
        device: Synchronised before the clock is read.
        repeats: Rounds that count.
        warmup: Rounds before them.

    Returns:
        Seconds of each round, by name; position i of every list is of the same round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(warmup + repeats):
        names = list(actions) if number % 2 == 0 else list(actions)[::-1]
        for name in names:
            synchronize(device)
            started = time.perf_counter()
            actions[name]()
            synchronize(device)
            if number >= warmup:
                seconds[name].append(time.perf_counter() - started)
        show_progress(f"round {number + 1} of {warmup + repeats}")
    return seconds


def median_of(seconds: list[float]) -> Interval:
    """Median and its 95 % interval by bootstrap."""
    values = np.asarray(seconds)
    return _bootstrap(values)


def ratio_of(base: list[float], other: list[float]) -> Interval:
    """How many times faster `other` is, pair by pair: both of a pair were measured in the same round."""
    return _bootstrap(np.asarray(base) / np.asarray(other))


def call_apart(*flags: str) -> Any:
    """What this command prints as its last line, JSON, when it is run with these flags too, in a process of its own."""
    command = [sys.executable, *sys.orig_argv[1:], *flags]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])


def train_in_worker(config: RunConfig, threads: int, **job: Any) -> dict[str, Any]:
    """Train in a worker process, as a trial of a search does.

    Args:
        config: The run's settings.
        threads: CPU threads of the process.
        job: What else its job file holds.

    Returns:
        Its result; `state` tells how it ended. What it printed is its `error` where it left no result.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, result = TrialFolder(Path(folder)).job, TrialFolder(Path(folder)).result
        path.write_text(Job(config=config.to_dict(), run_dir=folder, threads=threads, **job).to_json())
        command = [sys.executable, "-m", "timellm.worker", str(path)]
        environment = {**os.environ, **worker_environment(threads), "PYTHONPATH": str(FOLDER.parent)}
        done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if result.is_file():
            return json.loads(result.read_text())
    last = last_line(done.stderr, "no output")
    return {"state": State.FAILED, "error": f"The process ended with status {done.returncode}: {last}"}


def whole_numbers(flag: str, text: str) -> list[int]:
    """The numbers of a comma-separated flag.

    Raises:
        InputError: If one is not a whole number above 0.
    """
    words = text.split(",")
    if not all(word.strip().isdigit() and int(word) > 0 for word in words):
        raise InputError(f"{flag} must be whole numbers above 0, comma-separated, got {text!r}.")
    return [int(word) for word in words]


def show_progress(text: str) -> None:
    """One line on stderr; rewritten on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


def amx_sentence() -> str:
    """Whether the processor multiplies bf16 tiles, which decides what bf16 gains on a CPU."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "AMX: unknown"
    if "amx_bf16" in flags:
        return "AMX: yes (bf16 tiles)"
    return f"AMX: no; avx512_bf16: {'yes' if 'avx512_bf16' in flags else 'no'}"


def _bootstrap(values: np.ndarray) -> Interval:
    """The median of `values` [n] and the middle 95 % of medians of resamples; unbounded with one value."""
    median = float(np.median(values))
    if len(values) < 2:
        return Interval(median, 0.0, float("inf"))
    picks = np.random.default_rng(0).integers(0, len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(np.median(values[picks], axis=1), [0.025, 0.975])
    return Interval(median, float(low), float(high))
