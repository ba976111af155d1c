"""How soon each searcher finds what there is to find, replayed over a recorded table."""

import argparse
import dataclasses
import itertools
import math
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.pool import Pool
from pathlib import Path

import numpy as np

from benchmarks.curves import Curve, write_svg
from benchmarks.document import command_line, today
from benchmarks.factorial import TABLE, Conditions, Factorial, is_complete, recorded_space
from benchmarks.harness import Interval, show_progress
from benchmarks.medians import median_of, ratio_of_medians
from benchmarks.record import Notes, Record, Section, Table, Text, table
from benchmarks.replay import Replay, Replayed
from benchmarks.replay_apart import SHARINGS, Sharing, Tables
from benchmarks.runner import Benchmark
from benchmarks.sharing import Shared, method_words, replayed_sharing, seconds_to, section
from search.decide.clocks.schedulers import SCHEDULERS
from search.decide.propose.samplers import SAMPLERS
from spaces import load_space
from timellm.contract.errors import InputError
from timellm.contract.flags import StrictParser
from timellm.machine.environment import package_versions

WANTED = 0.95
"""Share of the table's hypervolume that a search is to reach."""
GOAL = 1 / 3
"""Of the wall clock that random draws need for it."""
MARKS = (1 / 8, 1 / 4, 1 / 3, 1 / 2, 1.0)
"""Wall clocks at which hypervolumes are shown, in what random draws need for WANTED."""
REFERENCE, USUAL = ("random", "none"), ("gp", "none")
"""Sampler and scheduler: random draws, and what a search does unless it is told otherwise."""
INTRODUCTION = """# Search efficiency

Every configuration of `factorial.toml` was trained once, with the real language model on real data, and validated at
the rungs that the scheduler stops at (`record_factorial.py`, `factorial.csv`). Searches are then replayed over that
table by the project's own study, samplers and MO-ASHA. The clock is simulated: a trial costs what its recorded run
took, to its end or to the rung where it is stopped, and the start of a worker process. The hypervolume is that of the
complete trials on logarithms of both objectives, against the reference point of a real search, relative to the
hypervolume of the whole table. Each search starts with the baseline, like a real one. Medians over seeds, with their
95 % bootstrap interval. Every search but the random one is followed for the wall clock that random draws need (median);
one that has not arrived by then, or whose scheduler has stopped what it needed, counts as infinitely slow."""

Method = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Task:
    """A search to replay.

    Attributes:
        table: The table.
        space: Its space; None for that of the benchmark.
        method: Sampler and scheduler.
        seed: Of the sampler.
        most_seconds: Simulated wall clock at which it ends.
        sharing: What its trials share; None for whole trials as they were recorded.
    """

    table: Path
    space: Path | None
    method: Method
    seed: int
    most_seconds: float
    sharing: Sharing | None = None


@dataclass(frozen=True)
class Results:
    """Replayed searches.

    Attributes:
        runs: One per seed, by sampler and scheduler.
        startup_seconds: What each trial's start costs on the clock.
    """

    runs: Mapping[Method, Sequence[Replayed]]
    startup_seconds: float

    def seconds(self, method: Method) -> np.ndarray:
        """Wall clock of each seed to the wanted share [seeds]; infinite where it is not reached."""
        return np.array([run.seconds_to(WANTED, self.startup_seconds) for run in self.runs[method]])

    def shares(self, method: Method, seconds: float) -> np.ndarray:
        """Share of each seed at a wall clock [seeds]."""
        return np.array([run.share_at(seconds, self.startup_seconds) for run in self.runs[method]])

    def ratio(self, method: Method) -> Interval:
        """Wall clock to the wanted share over random's, medians over seeds."""
        return ratio_of_medians(self.seconds(method), self.seconds(REFERENCE))

    def best(self) -> Method:
        """The method with the lowest median wall clock."""
        return min(self.runs, key=lambda method: float(np.median(self.seconds(method))))


class SearchEfficiency(Benchmark):
    """Replays searches over a recorded table."""

    name = "search_efficiency"
    title = "Replays searches over a recorded table."
    introduction = INTRODUCTION

    replaces_all = True
    _results: "Results"

    def parser(self) -> argparse.ArgumentParser:
        """Its flags."""
        parser = StrictParser(prog=f"benchmarks {self.name}", description=self.title)
        parser.add_argument("--seeds", type=int, default=20, help="searches of each kind (20)")
        parser.add_argument("--jobs", type=int, default=1, help="processes, at the lowest priority (1)")
        parser.add_argument("--samplers", default=",".join(SAMPLERS), help=f"comma-separated ({','.join(SAMPLERS)})")
        parser.add_argument("--table", type=Path, default=TABLE, help="the table (benchmarks/factorial.csv)")
        parser.add_argument("--space", type=Path, default=None, help="its space (benchmarks/factorial.toml)")
        return parser

    def measure(self, arguments: argparse.Namespace) -> list[Section]:
        """The section of this device and model."""
        samplers = arguments.samplers.split(",")
        space = load_space(str(arguments.space)) if arguments.space else recorded_space()
        tables = Tables.load(arguments.table, space)
        if unknown := sorted(set(samplers) - set(SAMPLERS)):
            raise InputError(f"--samplers must be of {', '.join(SAMPLERS)}, got {', '.join(unknown)}.")
        replay = load_replay(arguments.table, arguments.space)
        with multiprocessing.get_context("spawn").Pool(arguments.jobs, initializer=os.nice, initargs=(19,)) as pool:
            self._results = results = _replayed(replay, samplers, arguments, pool)
            shared = _replayed_sharings(arguments, pool)
        own = sections(replay, results, arguments.seeds, command_line())
        return [*own, section(shared, tables, WANTED)]

    def record(self, sections: tuple[Section, ...], markdown: Path) -> Record:
        """The whole file, its picture at the end."""
        return dataclasses.replace(super().record(sections, markdown), closing=f"![]({markdown.stem}.svg)")

    def finish(self, markdown: Path) -> None:
        """Draw the picture beside the file."""
        draw(self._results, markdown.with_suffix(".svg"))


def _replayed(replay: Replay, samplers: list[str], arguments: argparse.Namespace, pool: Pool) -> "Results":
    """Every search: the random one to its end, the others for as long as its median."""
    startup = replay.conditions.startup_seconds

    def tasks(methods: Sequence[Method], most_seconds: float) -> list[Task]:
        seeds = range(arguments.seeds)
        return [Task(arguments.table, arguments.space, one, seed, most_seconds) for seed in seeds for one in methods]

    runs = replay_all(tasks([REFERENCE], math.inf), pool)
    limit = float(np.median(Results(runs, startup).seconds(REFERENCE)))
    others = [method for method in itertools.product(samplers, reversed(SCHEDULERS)) if method != REFERENCE]
    return Results({**runs, **replay_all(tasks(others, limit), pool)}, startup)


def _replayed_sharings(arguments: argparse.Namespace, pool: Pool) -> Shared:
    """Searches whose trials share more and more: random ones and those of the usual sampler; the last stopped too.

    All but the first random ones are followed for the wall clock that those need (median), the stopped ones for twice
    what the same sampler needs without stopping.
    """

    def replayed(sharing: Sharing, methods: Sequence[Method], most_seconds: float) -> Shared:
        common = (arguments.table, arguments.space)
        seeds = range(arguments.seeds)
        tasks = [Task(*common, one, seed, most_seconds, sharing) for seed in seeds for one in methods]
        return {(sharing, method): runs for method, runs in replay_all(tasks, pool).items()}

    first, last = SHARINGS[0], SHARINGS[-1]
    runs = dict(replayed(first, [REFERENCE], math.inf))
    limit = float(np.median(seconds_to(runs[first, REFERENCE], WANTED)))
    for sharing in SHARINGS:
        runs |= replayed(sharing, [REFERENCE, USUAL] if sharing is not first else [USUAL], limit)
    for method in (REFERENCE, USUAL):
        unstopped = float(np.median(seconds_to(runs[last, method], WANTED)))
        runs |= replayed(last, [(method[0], "moasha")], min(limit, 2 * unstopped))
    return runs


def load_replay(path: Path, space: Path | None) -> Replay:
    """The replay of a table.

    Raises:
        InputError: If a configuration of the space is not in it, or the file of its conditions is missing.
    """
    recorded_table = Factorial(load_space(str(space)) if space else recorded_space(), path)
    recorded, conditions = recorded_table.require_whole(), Conditions.read(path)
    if conditions is None:
        raise InputError(f"{path} needs {path.with_suffix('.json')} beside it, which says what it was recorded with.")
    return Replay(table=recorded_table, recorded=recorded, conditions=conditions)


def replay_all(tasks: Sequence[Task], pool: Pool) -> dict[Method, list[Replayed]]:
    """Replay searches, several at once.

    Args:
        tasks: The searches.
        pool: Processes that replay them.
    """
    runs: dict[Method, list[Replayed]] = {}
    for number, (task, run) in enumerate(zip(tasks, pool.imap(_replay, tasks), strict=True), 1):
        runs.setdefault(task.method, []).append(run)
        show_progress(f"{number} of {len(tasks)}: {method_words(task.method)}, {len(run.steps)} trials")
    return runs


def _replay(task: Task) -> Replayed:
    if task.sharing is not None:
        space = load_space(str(task.space)) if task.space else recorded_space()
        tables = Tables.load(task.table, space)
        return replayed_sharing(tables, task.sharing, task.method, task.seed, task.most_seconds, WANTED)
    return load_replay(task.table, task.space).run(
        *task.method, task.seed, needed=WANTED, most_seconds=task.most_seconds
    )


def sections(replay: Replay, results: Results, seeds: int, command: str) -> list[Section]:
    """What stands below the introduction.

    Args:
        replay: The table.
        results: With the start-up that was measured.
        seeds: Searches of each method.
        command: What reproduces it.
    """
    conditions = replay.conditions
    free = Results(results.runs, 0.0)
    curve_words = f"Share of the table's hypervolume; 1 is the wall clock that random draws need for {WANTED:.0%}."
    free_words = (
        f"A trial's start costs {conditions.startup_seconds:.1f} s above, much beside so short a run. The longer "
        "the runs, the nearer a search comes to this table."
    )
    clock = (_conditions(replay, seeds, command), _wall_clock_table(results), Text(verdict(results)))
    return [
        Section(f"Wall clock to {WANTED:.0%} of the hypervolume", clock),
        Section("Hypervolume over wall clock", (Text(curve_words), _curve_table(results))),
        Section("Were start-up free", (Text(free_words), _wall_clock_table(free), Text(verdict(free)))),
    ]


def _conditions(replay: Replay, seeds: int, command: str) -> Notes:
    conditions, complete = replay.conditions, [run for run in replay.recorded.values() if is_complete(run)]
    seconds = sorted(run.last.seconds for run in complete)
    machine = conditions.machine
    told = [f"{replay.rank_correlation(number):.2f} at {rung}" for number, rung in enumerate(conditions.rungs)]
    lines = [
        f"Table: {len(replay.recorded)} configurations, {len(complete)} complete, {replay.front_size} on the front; "
        f"{conditions.train_samples} training and {conditions.val_samples} validation windows, rungs at "
        f"{' and '.join(map(str, conditions.rungs))}",
        f"A run: {seconds[0]:.1f} to {seconds[-1]:.1f} s, median {np.median(seconds):.1f} s, start-up "
        f"{conditions.startup_seconds:.1f} s before it",
        f"Rank correlation of the error at a rung with the error at the end: {' and '.join(told)} windows",
        f"Recorded: {conditions.date}, {machine.get('cpu')}, {conditions.threads} core, revision {conditions.revision}",
        f"Replayed: {today()}, {seeds} seeds, optuna {package_versions().get('optuna')}, command `{command}`",
    ]
    return Notes(tuple(lines))


def _wall_clock_table(results: Results) -> Table:
    rows = []
    for method, runs in results.runs.items():
        seconds = results.seconds(method)
        trials = np.array([run.trials_to(WANTED) for run in runs])
        rows.append(
            (
                method_words(method),
                f"{median_of(seconds).scaled(1 / 60):.1f}",
                f"{results.ratio(method):.2f}",
                f"{np.median(trials):.0f}",
                f"{np.isfinite(seconds).sum()} of {len(runs)}",
                f"{1000 * np.mean([run.thinking_seconds for run in runs]):.0f}",
            )
        )
    heads = ("searcher", "minutes", "of random's", "trials", "seeds that reach it", "sampler's ms per trial")
    return table(heads, rows)


def _curve_table(results: Results) -> Table:
    unit = float(np.median(results.seconds(REFERENCE)))
    rows = [
        (method_words(method), *(f"{median_of(results.shares(method, unit * mark)):.2f}" for mark in MARKS))
        for method in results.runs
    ]
    return table(("searcher", *(f"{mark:.2g}" for mark in MARKS)), rows)


def verdict(results: Results) -> str:
    """Who is first, and whether the goal is met."""
    best = results.best()
    ratio = results.ratio(best)
    word = "met" if ratio.median <= GOAL else "NOT met"
    return (
        f"First: {method_words(best)}, in {ratio:.2f} of random's wall clock. Goal, at most {GOAL:.2f} by the medians: "
        f"{word}."
    )


def draw(results: Results, path: Path) -> None:
    """Draw the hypervolume over wall clock."""
    ends = float(np.median(results.seconds(REFERENCE)))
    if not np.isfinite(ends):
        ends = max(sum(s.seconds + results.startup_seconds for s in run.steps) for run in results.runs[REFERENCE])
    times = np.linspace(0, ends, 101)
    curves = []
    for method in results.runs:
        found = [median_of(results.shares(method, float(seconds))) for seconds in times]
        lines = ([getattr(one, name) for one in found] for name in ("median", "low", "high"))
        curves.append(Curve(method_words(method), method[0], method[1] != "none", *lines))
    write_svg(path, times / 60, curves, WANTED)
