"""A profile of a few steady steps: which part of a step takes the time, and which operations."""

import json
import os
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from timellm.contract.job import EventKind
from timellm.machine.environment import synchronize
from timellm.model.parts import PARTS, PREFIX

TRACE = "profile.pt.trace.json.gz"
"""The trace: open it in https://ui.perfetto.dev, or its folder in TensorBoard's profiler plugin."""
PROFILE = "profile.json"
"""The shares and the costliest operations."""

PROFILED_STEPS = 4
"""Steps that are recorded."""
TOP = 15
"""Operations in the table."""

OTHER = "other"
"""The part of what runs outside every range: the loss, gradients that are added up, Python between operations."""

_BACKWARD = "autograd::engine::evaluate_function"
_STEP = "ProfilerStep"
_WRAPPERS = (PREFIX, _BACKWARD, _STEP)


@dataclass(frozen=True, kw_only=True)
class StepProfile:
    """What the recorded steps spent their time on.

    Attributes:
        steps: Steps recorded.
        seconds_per_step: Wall clock of a recorded step; recording makes it longer than an unrecorded one.
        host_share: Share of the main thread's time in each part, percent, its backward pass included where it runs
            in that thread; with `other` they add up to 100.
        device_share: Share of the GPU's time in each part, percent; the rest up to 100 is the GPU waiting. None on a
            CPU.
        top_operations: Operations by their own time: name, calls per step, milliseconds per step.
        trace: File of the trace.
    """

    steps: int
    seconds_per_step: float
    host_share: dict[str, float]
    device_share: dict[str, float] | None
    top_operations: list[tuple[str, float, float]]
    trace: str

    def lines(self) -> list[str]:
        """The shares and the table of operations as text."""
        shares = {"host": self.host_share, "GPU": self.device_share}
        head = f"profile of {self.steps} steps, {self.seconds_per_step:.4f} s each while recorded; trace: {self.trace}"
        texts = [
            f"{name} time: " + ", ".join(f"{part} {share:.1f} %" for part, share in parts.items())
            for name, parts in shares.items()
            if parts is not None
        ]
        table = [f"{name:<60.60} {calls:9.1f} {ms:11.3f}" for name, calls, ms in self.top_operations]
        return [head, *texts, f"{'operation':<60} {'calls/step':>9} {'ms/step':>11}", *table]


class StepProfiler:
    """Records some steps of a training, after its first ones.

    A `Stepper` calls it around every step and stops its clock meanwhile, since recording takes time.

    Args:
        folder: Where the trace and the shares go.
        device: Where the steps run.
        skip: Steps to leave out at the start.
        on_event: Called once with an `EventKind.PROFILE`: the fields of the `StepProfile` and its `lines`; where the
            training was too short for one, the lines say so.
        steps: Steps to record; one more is taken before them, for the profiler itself to warm up.
    """

    def __init__(
        self,
        folder: Path,
        device: torch.device,
        skip: int,
        on_event: Callable[[dict[str, Any]], None] = lambda event: None,
        steps: int = PROFILED_STEPS,
    ) -> None:
        self._folder, self._device, self._skip, self._steps = folder, device, skip, steps
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it reports its own start and stop on stderr
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        self._profile = profile(activities=activities, schedule=schedule(wait=0, warmup=1, active=steps, repeat=1))
        self._on_event = on_event
        self._seen = 0
        self._recorded = -1
        self._started = 0.0
        self._is_running = False
        self.result: StepProfile | None = None

    def begin_step(self) -> bool:
        """Whether the step that follows is recorded, or taken for the profiler to warm up."""
        self._seen += 1
        if not self._is_running and self._seen == self._skip + 1:
            self._profile.start()
            self._is_running = True
        return self._is_running

    def end_step(self) -> None:
        """The step has been issued; after the last one the profile is written."""
        if not self._is_running:
            return
        synchronize(self._device)
        self._recorded += 1
        if self._recorded == 0:
            self._started = time.perf_counter()
        if self._recorded == self._steps:
            self.finish()
        else:
            self._profile.step()

    def finish(self) -> None:
        """Stop, and write what was recorded so far; without a recorded step nothing is written."""
        if not self._is_running:
            return
        seconds = time.perf_counter() - self._started
        self._is_running = False
        self._profile.stop()
        if self._recorded > 0:
            self.result = self._write(seconds / self._recorded)
            self._on_event({"event": EventKind.PROFILE, **asdict(self.result), "lines": self.result.lines()})

    def close(self) -> None:
        """Say so where the training was too short for a profile."""
        if self.result is None:
            least = self._skip + 2
            line = f"A profile needs at least {least} training steps, got {self._seen}. Use a smaller --batch_size."
            self._on_event({"event": EventKind.PROFILE, "steps": 0, "lines": [line]})

    def _write(self, seconds_per_step: float) -> StepProfile:
        self._folder.mkdir(parents=True, exist_ok=True)
        trace = self._folder / TRACE
        self._profile.export_chrome_trace(str(trace))
        wall = 1e6 * seconds_per_step * self._recorded
        host, device = time_by_part(self._profile.events() or [])
        on_gpu = self._device.type == "cuda"
        result = StepProfile(
            steps=self._recorded,
            seconds_per_step=seconds_per_step,
            host_share=_shares(host, sum(host.values())),
            device_share=_shares(device, wall) if on_gpu else None,
            top_operations=_top_operations(self._profile, self._recorded, on_gpu=on_gpu),
            trace=str(trace),
        )
        (self._folder / PROFILE).write_text(json.dumps(asdict(result), indent=2) + "\n")
        return result


def time_by_part(events: Any) -> tuple[dict[str, float], dict[str, float]]:
    """Own time of all events by the part they belong to.

    A forward operation belongs to the innermost range around it. A backward operation belongs to the part of the
    forward operation whose gradient it computes, which the profiler's sequence numbers tell.

    Args:
        events: Of a torch profiler.

    Returns:
        Microseconds of the main thread and of the device, each by part.
    """
    operations = [event for event in events if event.device_type == torch.autograd.DeviceType.CPU]
    operations.sort(key=lambda event: (event.time_range.start, -event.time_range.end))
    main_threads = {event.thread for event in operations if event.name.startswith(_STEP)}
    forward: dict[tuple[int, int], str] = {}
    parts: dict[int, str] = {}
    host: dict[str, float] = defaultdict(float)
    device: dict[str, float] = defaultdict(float)
    for event in operations:
        name = parts[id(event)] = _part_of(event, parts, forward)
        if event.sequence_nr >= 0 and not event.name.startswith(_BACKWARD):
            forward[event.thread, event.sequence_nr] = name  # the last to see a number is the one that it is given to
        device[name] += event.self_device_time_total
        if event.thread in main_threads:
            host[name] += event.self_cpu_time_total
    return host, device


def _part_of(event: Any, parts: dict[int, str], forward: dict[tuple[int, int], str]) -> str:
    if event.name.startswith(PREFIX):
        return event.name.removeprefix(PREFIX)
    if event.name.startswith(_BACKWARD) and (event.fwd_thread, event.sequence_nr) in forward:
        return forward[event.fwd_thread, event.sequence_nr]
    return OTHER if event.cpu_parent is None else parts[id(event.cpu_parent)]


def _shares(microseconds: dict[str, float], total: float) -> dict[str, float]:
    """Percent of a total, in the order of PARTS."""
    names = [*PARTS, *sorted(set(microseconds) - {*PARTS, OTHER}), OTHER]
    return {name: 100 * microseconds.get(name, 0.0) / total for name in names}


def _top_operations(recorded: profile, steps: int, *, on_gpu: bool) -> list[tuple[str, float, float]]:
    kind = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    rows = [
        (row.key, row.count / steps, getattr(row, kind) / 1000 / steps)
        for row in recorded.key_averages()
        if row.device_type == torch.autograd.DeviceType.CPU and not row.key.startswith(_WRAPPERS)
    ]
    return sorted(rows, key=lambda row: -row[2])[:TOP]
