"""Trains every configuration of `factorial.toml` once and writes `factorial.csv`."""

import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.document import today
from benchmarks.factorial import TABLE, Conditions, Factorial, Recorded, Validation, recorded_space
from benchmarks.harness import FOLDER, median_of, show_progress, use_worker_environment
from search.decide.clocks.halving import rungs_of
from search.decide.spend.fidelity import Fidelity
from spaces import Space
from spaces.knobs import Value
from timellm.contract.columns import State
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.contract.flags import StrictParser
from timellm.contract.job import EventKind, Job
from timellm.contract.layout import TrialFolder
from timellm.machine.environment import describe_machine, git_revision, package_versions
from timellm.run.training import RunOptions, TrainingRun

PROG = "benchmarks.record_factorial"
STARTS = 3
"""Worker processes that are started to time a start-up, beside a first one that warms the caches."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Record what is missing; an interrupted recording goes on where it was."""
    parser = StrictParser(
        prog=PROG,
        description="Trains every configuration of benchmarks/factorial.toml once, in one process, and appends it to "
        "a table; run again, it goes on. Needs a machine that does nothing else.",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (1)")
    parser.add_argument("--limit", type=int, default=None, help="record at most this many more (all)")
    parser.add_argument("--seed", type=int, default=0, help="of the order in which they are trained (0)")
    parser.add_argument("--output", type=Path, default=TABLE, help="the table (benchmarks/factorial.csv)")
    options = parser.parse_args(arguments)
    use_worker_environment(options.threads)
    space = recorded_space()
    table = Factorial(space, options.output)
    fidelity = Fidelity.of_samples(int(space.search["fidelity"]))
    left = missing(table, options.seed)[: options.limit]
    conditions = _conditions(table, fidelity, options.threads)
    if left:
        record(run_config(space, left[0], fidelity), left[0], conditions.rungs)  # the first run of a process is slow
    began = time.monotonic()
    for number, settings in enumerate(left):
        run = record(run_config(space, settings, fidelity), settings, conditions.rungs)
        table.append(run)
        share = (time.monotonic() - began) / (number + 1)
        show_progress(
            f"{number + 1} of {len(left)}: {run.state} in {run.last.seconds:.1f} s, val mse {run.last.val_mse}, "
            f"{share * (len(left) - number - 1) / 60:.0f} minutes left"
        )
    return 0


def missing(table: Factorial, seed: int) -> list[dict[str, Value]]:
    """The configurations that have not been recorded, in a random order that depends on the seed alone.

    Drifts of the machine's speed then look like noise, not like an effect of a knob.
    """
    known = table.read()
    every = list(table.space.configurations())
    random.Random(seed).shuffle(every)
    return [settings for settings in every if table.key(settings) not in known]


def run_config(space: Space, settings: dict[str, Value], fidelity: Fidelity) -> RunConfig:
    """The run of a configuration."""
    return fidelity.apply(RunConfig.from_dict(space.settings(settings)))


def record(config: RunConfig, settings: dict[str, Value], rungs: Sequence[int]) -> Recorded:
    """Train a configuration in this process, as a worker does.

    Args:
        config: Its run.
        settings: Its knobs.
        rungs: Training windows after which it validates on its way.
    """
    began = 0.0
    validations: list[Validation] = []

    def listen(event: dict[str, Any]) -> None:
        nonlocal began
        if event["event"] == EventKind.TRAINING:
            began = time.perf_counter()
        elif event["event"] == EventKind.VALIDATION:
            measured = event["samples"], event["val_mse"], event["seconds_per_epoch"]
            validations.append(Validation(*measured, time.perf_counter() - began))

    with tempfile.TemporaryDirectory() as folder:
        result = TrainingRun(config, RunOptions(folder=Path(folder), rungs=rungs, on_event=listen)).run()
    seconds = time.perf_counter() - began
    if result.state == State.COMPLETE:
        reached = validations.pop().samples
        validations.append(Validation(reached, result.val_mse, result.seconds_per_epoch, seconds))
    else:
        validations.append(Validation(config.train_samples or 0, None, result.seconds_per_epoch, seconds))
    gc.collect()
    return Recorded(settings, str(result.state), tuple(validations))


def _conditions(table: Factorial, fidelity: Fidelity, threads: int) -> Conditions:
    """What the table is recorded with: as an earlier session began it, or measured now.

    Raises:
        InputError: If the earlier session had other samples or threads.
    """
    space = table.space
    baseline = run_config(space, dict(space.baseline), fidelity)
    asked = (fidelity.train_samples, fidelity.val_samples, rungs_of(fidelity, baseline, 0), threads)
    earlier = Conditions.read(table.path)
    if earlier is None:
        earlier = Conditions(
            startup_seconds=round(_startup_seconds(baseline, threads), 3),
            train_samples=asked[0] or 0,
            val_samples=asked[1] or 0,
            rungs=asked[2],
            threads=threads,
            machine=describe_machine(),
            versions=package_versions(),
            revision=git_revision(),
            date=today(),
        )
        earlier.write(table.path)
    found = (earlier.train_samples, earlier.val_samples, earlier.rungs, earlier.threads)
    if found != asked:
        raise InputError(
            f"A table is recorded with one set of samples, rungs and threads: {table.path} has {found}, got {asked}. "
            "Move it away to record it anew."
        )
    return earlier


def _startup_seconds(config: RunConfig, threads: int) -> float:
    """From the start of a worker process to its first step, median of several."""
    readings = []
    for number in range(STARTS + 1):
        with tempfile.TemporaryDirectory() as folder:
            short = config.replace(train_samples=config.global_batch, val_samples=1)
            job = Job(config=short.to_dict(), run_dir=folder, threads=threads, min_timed_steps=1)
            path = TrialFolder(Path(folder)).job
            path.write_text(job.to_json())
            command = [sys.executable, "-m", "timellm.worker", str(path)]
            environment = {**os.environ, "PYTHONPATH": str(FOLDER.parent)}
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
            result = json.loads(TrialFolder(Path(folder)).result.read_text())
        show_progress(f"start {number} of {STARTS}: {result['startup_seconds']:.1f} s")
        readings += [result["startup_seconds"]] if number else []
    return median_of(readings).median


if __name__ == "__main__":
    from timellm.arguments import run_command

    run_command(main, PROG)
