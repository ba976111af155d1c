"""Clocks and what is concluded from them: seconds per step with an interval, seconds per epoch."""

import contextlib
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from timellm.contract.config import RunConfig
from timellm.machine.environment import synchronize

RESAMPLES = 2000
_PARTS = 20
"""Parts that resamples are summed in, so that a long run's take little memory."""
NORMAL_95 = 1.96
"""Standard deviations on either side of a normal distribution's mean that hold 95 % of it."""
PROCESS_SPREAD = 0.012
"""Standard deviation of what steps take between processes that do the same, relative to their mean.

Measured on two CPU cores (benchmarks/projection.md, which says how well the intervals made with it hold).
"""


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    def scaled(self, factor: float) -> "Estimate":
        """The same in other units."""
        return Estimate(self.mean * factor, self.low * factor, self.high * factor)

    def plus(self, other: "Estimate") -> "Estimate":
        """Sum of two independent estimates; half widths add in quadrature."""
        mean = self.mean + other.mean
        low = float(np.hypot(self.mean - self.low, other.mean - other.low))
        high = float(np.hypot(self.high - self.mean, other.high - other.mean))
        return Estimate(mean, mean - low, mean + high)

    def across_processes(self) -> "Estimate":
        """The same for another process: memory lies elsewhere there, and the machine may be in another state.

        Two processes differ by the spread of one times the square root of 2; that and the interval within this one
        add in quadrature.
        """
        between = NORMAL_95 * math.sqrt(2) * PROCESS_SPREAD * self.mean
        low, high = np.hypot([self.mean - self.low, self.high - self.mean], between)
        return Estimate(self.mean, max(0.0, self.mean - float(low)), self.mean + float(high))


def bootstrap_mean(seconds: Sequence[float], weights: Sequence[float] | None = None) -> Estimate:
    """Mean and 95 % interval by moving-block bootstrap, since neighbouring steps share what disturbs them.

    The interval is for the process that was timed, see `Estimate.across_processes`. Blocks are as long as the cube
    root of the sample (Künsch 1989; Hall, Horowitz and Jing 1995). With one value the interval is unbounded above and
    starts at 0: nothing is known of the spread.

    Args:
        seconds: Durations, in the order they were measured.
        weights: Steps that each duration covers (default: one each).

    Returns:
        Seconds per step.
    """
    durations = np.asarray(seconds, dtype=float)
    counts = np.ones(len(durations)) if weights is None else np.asarray(weights, dtype=float)
    mean = float(durations.sum() / counts.sum())
    if len(durations) < 2:
        return Estimate(mean, 0.0, float("inf"))
    block = max(1, round(len(durations) ** (1 / 3)))
    starts = len(durations) - block + 1
    picks = np.random.default_rng(0).integers(0, starts, size=(RESAMPLES, -(-len(durations) // block)))
    parts = np.array_split(picks, _PARTS)
    means = np.concatenate(
        [sums_of_blocks(durations, part, block) / sums_of_blocks(counts, part, block) for part in parts]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(mean, min(float(low), mean), max(float(high), mean))


def sums_of_blocks(values: np.ndarray, picks: np.ndarray, block: int) -> np.ndarray:
    """Sums of resamples as long as the sample, made of blocks; the last block of each is cut.

    A long run has tens of thousands of steps: no resample is ever written out.

    Args:
        values: The sample [values].
        picks: Where each resample's blocks start [resamples, blocks].
        block: Length of a block.

    Returns:
        One sum per resample [resamples].
    """
    until = np.concatenate(([0.0], np.cumsum(values)))
    whole, last = picks[:, :-1], picks[:, -1]
    left = len(values) - whole.shape[1] * block
    return (until[whole + block] - until[whole]).sum(axis=1) + until[last + left] - until[last]


class IdleClock:
    """Time in which the device waits for a batch.

    A GPU runs behind the process that gives it work, which may wait while the GPU is busy: there the time counts from
    the end of the GPU's last work to the arrival of the batch, by events on the GPU itself.

    Args:
        device: The device that would work.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._marks: list[Any] = []

    def mark(self) -> None:
        """Called before and after a batch is asked for."""
        if self._on_gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def take(self) -> float:
        """Seconds since the last call, which the device has been synchronised for."""
        pairs = list(zip(self._marks[::2], self._marks[1::2], strict=True))
        self._marks.clear()
        if self._on_gpu:
            return sum(before.elapsed_time(after) for before, after in pairs) / 1000
        return sum(after - before for before, after in pairs)


GPU_WARMUP_STEPS = 10
"""Steps at the start that are never timed on a GPU, where libraries choose kernels and memory finds its place."""


def warmup_steps(config: RunConfig, device: torch.device) -> int:
    """Optimizer steps at the start of a run that its timing leaves out on a device."""
    asked = config.untimed_steps
    return asked if device.type == "cpu" or config.warmup_steps == 0 else max(asked, GPU_WARMUP_STEPS)


@dataclass(eq=False)
class StepClock:
    """Times steady optimizer steps; the first ones, and whatever comes between steps, are left out.

    On a GPU, which runs behind the process, each step leaves an event in the GPU's queue. Every some steps the process
    waits for the GPU, and the wall clock since it did so last is divided among them as their events are apart.

    Args:
        device: Synchronised before the clock is read.
        warmup_steps: Steps at the start that are timed apart.
        steps_per_reading: Steps between two readings; more than one lets a GPU run ahead.

    Attributes:
        idle: To be marked around each wait for a batch.
        idle_seconds: Time of the steady steps in which the device waited for its batches.
    """

    device: torch.device
    warmup_steps: int
    steps_per_reading: int = 1
    warmup_seconds: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    idle_seconds: float = 0.0
    idle: IdleClock = field(init=False)
    _started: float | None = None
    _pending: int = 0
    _events: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Nothing has been waited for yet."""
        self.idle = IdleClock(self.device)

    def resume(self) -> None:
        """Start counting, at the first step and after whatever interrupted the steps."""
        synchronize(self.device)
        self.idle.take()
        self._events.clear()
        self._mark()
        self._started, self._pending = time.perf_counter(), 0

    def step_done(self) -> None:
        """One optimizer step has been issued."""
        assert self._started is not None
        self._pending += 1
        self._mark()
        if len(self.warmup_seconds) < self.warmup_steps:
            self.warmup_seconds += self._read()[0]
            self.idle.take()
        elif self._pending >= self.steps_per_reading:
            self._read_steady()

    def pause(self) -> None:
        """Stop counting before a validation or a checkpoint."""
        if self._started is not None and self._pending and len(self.warmup_seconds) >= self.warmup_steps:
            self._read_steady()
        self._started = None

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Leave out what is done while a step's batch is waited for and does not belong to the step."""
        was_running = self.is_running
        self.idle.mark()
        if was_running:
            self.pause()
        yield
        if was_running:
            self.resume()
        self.idle.mark()

    @property
    def is_running(self) -> bool:
        """Whether it counts."""
        return self._started is not None

    @property
    def steps(self) -> int:
        """Steady steps timed so far."""
        return sum(self.counts)

    def per_step(self) -> Estimate | None:
        """Seconds per optimizer step; None before a steady step was timed."""
        return bootstrap_mean(self.seconds, self.counts) if self.seconds else None

    def _mark(self) -> None:
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._events.append(event)

    def _read_steady(self) -> None:
        seconds, counts = self._read()
        self.seconds += seconds
        self.counts += counts
        self.idle_seconds += self.idle.take()

    def _read(self) -> tuple[list[float], list[int]]:
        """Seconds since the last reading, of each step where events tell them apart, and the steps that each covers."""
        synchronize(self.device)
        now = time.perf_counter()
        assert self._started is not None
        took, pending = now - self._started, self._pending
        self._started, self._pending = now, 0
        apart = [before.elapsed_time(after) for before, after in itertools.pairwise(self._events)]
        del self._events[:-1]
        if sum(apart) <= 0:
            return [took], [pending]
        return [took * part / sum(apart) for part in apart], [1] * len(apart)
