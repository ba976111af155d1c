"""Times levers side by side with their base, and trains them on equally many windows."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.harness import show_progress, time_interleaved, train_in_worker
from benchmarks.levers_list import Lever
from benchmarks.variants import Contestant, Variant
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError, error_words
from timellm.estimate.interleaved import measure_interleaved
from timellm.estimate.measurement import LEAST_ROUNDS, Failure, Measured, MeasurePlan
from timellm.estimate.projection import estimate_run

BASE = "base"
STEPS_HELD = 1
LEVERS_IN_A_PROCESS = 4
"""Each holds its optimizer's state, several hundred MiB."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A lever and its base, timed in the same rounds.

    Attributes:
        seconds: Seconds per window with the lever, by round.
        base: The base's, in the same rounds.
        memory_gib: Peak memory, where its process had nothing else in it.
        base_memory_gib: The base's.
        compile_seconds: Time that compiling took; 0 where nothing was compiled.
    """

    seconds: list[float]
    base: list[float]
    memory_gib: float | None = None
    base_memory_gib: float | None = None
    compile_seconds: float = 0.0


Outcome = Timed | str
"""Times, or why there are none."""


@dataclass(frozen=True, kw_only=True)
class Timer:
    """How levers are timed.

    Attributes:
        device: Where they run.
        threads: CPU threads of a process.
        rounds: Measurements of each; heavy ones get one less.
        steps: Optimizer steps of one measurement.
    """

    device: torch.device
    threads: int
    rounds: int
    steps: int

    def time(self, base: RunConfig, rows: list[Lever]) -> dict[str, Outcome]:
        """Time every lever that is one of time, by name."""
        outcomes: dict[str, Outcome] = {}
        timed = []
        for row in rows:
            obstacle = row.obstacle(base)
            if obstacle:
                outcomes[row.name] = obstacle
            elif row.is_timed:
                timed.append(row)
        together = [row for row in timed if not row.is_apart]
        for is_heavy in (False, True):
            group = [row for row in together if row.is_heavy(base) == is_heavy]
            for start in range(0, len(group), LEVERS_IN_A_PROCESS):
                outcomes |= self._in_a_process(base, group[start : start + LEVERS_IN_A_PROCESS], is_heavy)
        for group in _small_groups([row for row in timed if row.is_apart], base):
            outcomes |= self._apart(base, group)
        return outcomes

    def _rounds_of(self, is_heavy: bool) -> int:
        return max(min(LEAST_ROUNDS, self.rounds), self.rounds - is_heavy)

    def _in_a_process(self, base: RunConfig, rows: list[Lever], is_heavy: bool) -> dict[str, Outcome]:
        """A group in one process, which gives its memory back when it ends: its allocator never does."""
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            measured = _attempt(pool.submit(self.together, base, rows, is_heavy).result)
        return {row.name: measured for row in rows} if isinstance(measured, str) else measured

    def together(self, base: RunConfig, rows: list[Lever], is_heavy: bool) -> dict[str, Outcome]:
        """Time levers interleaved in this process, with the same weights; outcomes by name."""
        torch.set_num_threads(self.threads)
        contestants: dict[str, Contestant] = {}
        outcomes: dict[str, Outcome] = {}
        for row in [Lever(name=BASE), *rows]:
            show_progress(f"{base.prompt_prefix}: building {row.name}")
            built = _attempt(lambda row=row: self._ready(row, base, contestants.get(BASE)))  # type: ignore[misc]
            if isinstance(built, str):
                outcomes[row.name] = built
            else:
                contestants[row.name] = built
        if isinstance(reason := outcomes.pop(BASE, None), str):
            return {row.name: f"The base failed: {reason}" for row in rows}
        actions = {name: lambda one=one: _steps(one, self.steps) for name, one in contestants.items()}
        seconds = time_interleaved(actions, self.device, repeats=self._rounds_of(is_heavy), warmup=0)
        windows = {name: self.steps * one.config.global_batch for name, one in contestants.items()}
        per_window = {name: [part / windows[name] for part in parts] for name, parts in seconds.items()}
        for name in contestants:
            if name != BASE:
                outcomes[name] = Timed(seconds=per_window[name], base=per_window[BASE])
        return outcomes

    def _ready(self, row: Lever, base: RunConfig, other: Contestant | None) -> Contestant:
        """Built and warm; with a prompt store, filled."""
        contestant = Contestant(Variant(row.name, _all_settings(row, base)), base, self.device, STEPS_HELD)
        if other is not None:
            contestant.share_weights(other)
        _steps(contestant, self.steps)
        return contestant

    def _apart(self, base: RunConfig, rows: list[Lever]) -> dict[str, Outcome]:
        """Interleaved in processes of their own, one at a time; the others wait."""
        measured_rows = [row for row in rows if not row.counts_validation]
        settings = [base, *(row.of(base) for row in measured_rows)]
        if len(measured_rows) == len(rows):  # nobody asks for the evaluation, which is timed all the same
            settings = [config.replace(eval_batch_size=max(1, base.batch_size // 4)) for config in settings]
        rounds = self._rounds_of(any(row.is_heavy(base) for row in rows))
        warmup = 1 if any(config.compile_mode != "off" for config in settings) else 0
        plan = MeasurePlan(batches=rounds * self.steps, warmup_batches=warmup, rounds=rounds)
        show_progress(f"{base.prompt_prefix}: {', '.join(row.name for row in rows)}, each in a process of its own")
        measured = _attempt(lambda: measure_interleaved(settings, plan, self.threads, show_progress))
        if isinstance(measured, str):
            return {row.name: measured for row in rows}
        first, *others = measured
        if isinstance(first, Failure):
            return {row.name: f"The base failed: {first.error}" for row in rows}
        outcomes: dict[str, Outcome] = {
            row.name: other.error if isinstance(other, Failure) else _timed(base, first, row.of(base), other)
            for row, other in zip(measured_rows, others, strict=True)
        }
        for row in rows:
            if row.counts_validation:
                outcomes[row.name] = _with_validation(base, row.of(base), first)
        return outcomes


def train_all(
    base: RunConfig, rows: list[Lever], samples: int, threads: int, jobs: int, **job: object
) -> dict[str, dict[str, Any]]:
    """Train the base and every lever on so many windows, each as a trial of a search; results by name.

    Args:
        base: The run without a lever; val_samples says on how many windows all are judged.
        rows: Levers to train.
        samples: Training windows; 0 takes one optimizer step, for its memory.
        threads: CPU threads of each process.
        jobs: Processes at the same time.
        job: What else their job files hold.
    """
    wanted = [row for row in [Lever(name=BASE), *rows] if row.obstacle(base) is None]

    def train(row: Lever) -> dict[str, Any]:
        config = row.of(base)
        result = train_in_worker(config.replace(train_samples=samples or config.global_batch), threads, **job)
        show_progress(f"{base.prompt_prefix}, {row.name}: trained, {result['error'] or result['state']}")
        return result

    with ThreadPoolExecutor(jobs) as pool:
        return dict(zip([row.name for row in wanted], pool.map(train, wanted), strict=True))


def _small_groups(rows: list[Lever], base: RunConfig) -> list[list[Lever]]:
    """Levers that are in memory together: heavy ones alone, others in fours."""
    heavy = [[row] for row in rows if row.is_heavy(base)]
    light = [row for row in rows if not row.is_heavy(base)]
    return [light[start : start + LEVERS_IN_A_PROCESS] for start in range(0, len(light), LEVERS_IN_A_PROCESS)] + heavy


def _all_settings(row: Lever, base: RunConfig) -> dict[str, Any]:
    """A contestant has defaults of its own: what the base says of them comes first."""
    kept = ("accumulation_steps", "attention", "prompt_padding", "precision")
    return {**{name: getattr(base, name) for name in kept}, **row.settings}


def _steps(contestant: Contestant, count: int) -> None:
    for _ in range(count):
        contestant.step()


def _timed(base: RunConfig, first: Measured, config: RunConfig, other: Measured) -> Timed:
    return Timed(
        seconds=_per_window(config, other),
        base=_per_window(base, first),
        memory_gib=other.peak_memory_gib,
        base_memory_gib=first.peak_memory_gib,
        compile_seconds=other.compile_seconds if config.compile_mode != "off" else 0.0,
    )


def _with_validation(base: RunConfig, config: RunConfig, measured: Measured) -> Timed:
    """Seconds per window with an epoch's share of the validation, for both."""
    validation = estimate_run(base, measured).validation_seconds
    assert validation is not None
    share = validation / measured.epoch_windows
    training = _per_window(base, measured)
    return Timed(
        seconds=[seconds + share / config.validate_every for seconds in training],
        base=[seconds + share / base.validate_every for seconds in training],
        memory_gib=measured.peak_memory_gib,
        base_memory_gib=measured.peak_memory_gib,
    )


def _per_window(config: RunConfig, measured: Measured) -> list[float]:
    return [sum(part.seconds) / sum(part.counts) / config.global_batch for part in measured.rounds]


def _attempt(action: Callable[[], Any]) -> Any:
    """What it returns, or its error in one line: a lever that fails is a row, not the end."""
    try:
        return action()
    except InputError as error:
        return str(error)
    except Exception as error:
        return error_words(error)
