"""Watches a search from outside: when its trials begin to train and end, and the CPU time of its processes."""

import itertools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.harness import show_progress
from timellm.contract.job import EventKind
from timellm.contract.layout import EVENTS, RESULT
from timellm.machine.periodic import descendants

SECONDS_BETWEEN_CPU_READINGS = 1.0
DRIVER, RAY, TRAINING = "driver (search/run.py)", "Ray and the trainable", "training processes"


@dataclass
class TrialTimes:
    """Moments of a trial, Unix time, and its own start-up, seconds; None until they are seen."""

    training_at: float | None = None
    ended_at: float | None = None
    startup_seconds: float | None = None


@dataclass(frozen=True)
class Gap:
    """From the end of one training to the first step of the next."""

    trials: str
    seconds: float
    startup_seconds: float

    @property
    def beyond(self) -> float:
        """What the search took, seconds."""
        return self.seconds - self.startup_seconds


@dataclass
class Observer:
    """Watches a search from outside.

    Args:
        run: Its run folder.
        driver: Its process.
    """

    run: Path
    driver: psutil.Process
    trials: dict[str, TrialTimes] = field(default_factory=dict)
    _cpu: dict[tuple[int, float], tuple[str, float]] = field(default_factory=dict)
    _cpu_before: dict[str, float] | None = None
    _began: float = 0.0
    _read_at: float = 0.0
    _last: tuple[float, dict[str, float]] | None = None

    def look(self) -> None:
        """Note what has happened since the last look."""
        for folder in sorted((self.run / "trials").glob("*")):
            times = self.trials.setdefault(folder.name, TrialTimes())
            if times.training_at is None and (startup := startup_of(folder)) is not None:
                times.training_at, times.startup_seconds = time.time(), startup
                self._begin()
            if times.ended_at is None and (folder / RESULT).is_file():
                times.ended_at = (folder / RESULT).stat().st_mtime
                show_progress(f"{folder.name} has ended")
        if time.time() - self._read_at > SECONDS_BETWEEN_CPU_READINGS:
            self._read_cpu()

    def cpu_shares(self) -> dict[str, float]:
        """CPU time of each part over the observed time, as shares of one core."""
        if self._cpu_before is None or self._last is None:
            return {}
        until, now = self._last
        return {part: (now[part] - self._cpu_before[part]) / (until - self._began) for part in now}

    def _begin(self) -> None:
        if self._cpu_before is None:
            self._read_cpu()
            self._cpu_before, self._began = self._sums(), time.time()

    def _read_cpu(self) -> None:
        """Remember the CPU time of every process of the search; that of ended ones is kept."""
        parts = {self.driver.pid: DRIVER}
        try:
            processes = [self.driver, *descendants(self.driver)]
        except psutil.NoSuchProcess:
            return
        for process in processes:
            try:
                parent = parts.get(process.ppid(), RAY)
                part = parts.get(process.pid) or _part(process, parent)
                parts[process.pid] = part
                times = process.cpu_times()
                self._cpu[process.pid, process.create_time()] = (part, times.user + times.system)
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        self._read_at = time.time()
        if self._cpu_before is not None and any(times.ended_at is None for times in self.trials.values()):
            self._last = (self._read_at, self._sums())

    def _sums(self) -> dict[str, float]:
        sums = dict.fromkeys((DRIVER, RAY, TRAINING), 0.0)
        for part, seconds in self._cpu.values():
            sums[part] += seconds
        return sums


def startup_of(folder: Path) -> float | None:
    """Start-up of a trial's process, seconds, once its training has begun."""
    try:
        lines = (folder / EVENTS).read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event["event"] == EventKind.TRAINING:
            return event["startup_seconds"]
    return None


def gaps_of(trials: Mapping[str, TrialTimes]) -> list[Gap]:
    """The gap in front of every trial but the first, in the order in which they trained."""
    trained = sorted((times.training_at, name) for name, times in trials.items() if times.training_at is not None)
    gaps = []
    for (_, former), (training_at, name) in itertools.pairwise(trained):
        ended, startup = trials[former].ended_at, trials[name].startup_seconds
        if ended is not None and startup is not None:
            gaps.append(Gap(f"{former} to {name}", training_at - ended, startup))
    return gaps


def _part(process: psutil.Process, parent: str) -> str:
    """Which part of the search a process belongs to; children of a training are part of it."""
    return TRAINING if parent == TRAINING or any("timellm." in word for word in process.cmdline()) else RAY
