"""Trains every configuration of `factorial.toml` once, whole and with time and error apart, and writes the tables."""

import gc
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.document import today
from benchmarks.factorial import TABLE, Conditions, Factorial, Recorded, Settings, Validation, recorded_space
from benchmarks.forked import run_worker
from benchmarks.harness import median_of, show_progress, use_worker_environment
from search.decide.clocks.cheapest import cheapest
from search.decide.clocks.halving import rungs_of
from search.decide.spend.costs import VALIDATED_BATCHES
from search.decide.spend.fidelity import Fidelity
from spaces import Space
from timellm.contract.columns import State
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.contract.flags import StrictParser
from timellm.contract.job import CLOCKS, MIN_TIMED_STEPS, Clock, EventKind
from timellm.machine.environment import describe_machine, git_revision, package_versions
from timellm.run.training import RunOptions, TrainingRun

PROG = "benchmarks.record_factorial"
STARTS = 3
"""Worker processes that are started to time a start-up, beside a first one that warms the caches."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Record what is missing; an interrupted recording goes on where it was."""
    parser = StrictParser(
        prog=PROG,
        description="Trains every configuration of benchmarks/factorial.toml once whole, times it once, and trains "
        "its error once, in one process and in a random order, and appends each to its table; run again, it goes on. "
        "Needs a machine that does nothing else.",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (1)")
    parser.add_argument("--limit", type=int, default=None, help="record at most this many more (all)")
    parser.add_argument("--seed", type=int, default=0, help="of the order in which they are trained (0)")
    parser.add_argument("--output", type=Path, default=TABLE, help="the table (benchmarks/factorial.csv)")
    options = parser.parse_args(arguments)
    use_worker_environment(options.threads)
    space = recorded_space()
    tables = [Factorial(space, options.output, clock) for clock in CLOCKS]
    fidelity = Fidelity.of_samples(int(space.search["fidelity"]))
    left = missing(tables, options.seed)[: options.limit]
    conditions = _conditions(tables[0], fidelity, options.threads)
    if left:  # the first run of a process is slow
        record(run_config(space, left[0][1], fidelity), left[0][1], conditions.rungs)
    began = time.monotonic()
    for number, (table, settings) in enumerate(left):
        run = record(run_config(space, settings, fidelity), settings, conditions.rungs, table.clock)
        table.append(run)
        share = (time.monotonic() - began) / (number + 1)
        show_progress(
            f"{number + 1} of {len(left)}: {table.clock}, {run.state} in {run.last.seconds:.1f} s, "
            f"val mse {run.last.val_mse}, {share * (len(left) - number - 1) / 60:.0f} minutes left"
        )
    return 0


def missing(tables: Sequence[Factorial], seed: int) -> list[tuple[Factorial, Settings]]:
    """The runs that have not been recorded, in a random order that depends on the seed alone.

    Drifts of the machine's speed then look like noise, not like an effect of a knob or of a clock.
    """
    every = [(table, settings) for table in tables for settings in table.runs()]
    random.Random(seed).shuffle(every)
    known = {table.clock: table.read() for table in tables}
    return [(table, settings) for table, settings in every if table.key(settings) not in known[table.clock]]


def run_config(space: Space, settings: Settings, fidelity: Fidelity) -> RunConfig:
    """The whole run of a configuration."""
    return fidelity.apply(RunConfig.from_dict(space.settings(settings)))


def record(config: RunConfig, settings: Settings, rungs: Sequence[int], clock: Clock = "together") -> Recorded:
    """Train a configuration in this process, as a worker does.

    Args:
        config: Its whole run.
        settings: Its knobs.
        rungs: Training windows after which it validates on its way; a timing has none.
        clock: What is measured: a timing takes as few steps as in a search, an error is trained on the cheapest path.
    """
    if clock == "time":
        steps = config.untimed_steps + MIN_TIMED_STEPS
        validated = VALIDATED_BATCHES * config.evaluation_batch
        config, rungs = config.replace(train_samples=steps * config.global_batch, val_samples=validated), ()
    elif clock == "error":
        config = cheapest(config)
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
        options = RunOptions(folder=Path(folder), rungs=rungs, on_event=listen, clock=clock)
        result = TrainingRun(config, options).run()
    seconds = time.perf_counter() - began
    is_validated = result.state == State.COMPLETE and clock != "time"
    reached = validations.pop().samples if is_validated else config.train_samples or 0
    error = result.val_mse if is_validated else None
    validations.append(Validation(reached, error, result.seconds_per_epoch, seconds))
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
        started, forked = _startup_seconds(baseline, threads)
        earlier = Conditions(
            startup_seconds=round(started, 3),
            forked_startup_seconds=round(forked, 3),
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


def _startup_seconds(config: RunConfig, threads: int) -> tuple[float, float]:
    """From asking for a worker to its first step, started and forked, medians of several."""
    short = config.replace(train_samples=config.global_batch, val_samples=1)
    readings: dict[str, list[float]] = {"started": [], "forked": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(STARTS + 1):
            for kind, seconds in readings.items():
                result = run_worker(short, threads, Path(folder) / f"{kind}{number}", kind, timed_steps=1)
                show_progress(f"{kind} {number} of {STARTS}: {result['to_first_step']:.1f} s")
                seconds += [result["to_first_step"]] if number else []
    return median_of(readings["started"]).median, median_of(readings["forked"]).median


if __name__ == "__main__":
    from timellm.arguments import run_command

    run_command(main, PROG)
