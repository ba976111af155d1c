"""One worker process: started for a job, followed by its events, ended in good order or by force."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.tune.forked import SERVERS, ForkedProcess
from timellm.contract.columns import State
from timellm.contract.errors import ExitStatus, last_line
from timellm.contract.files import write_atomically
from timellm.contract.job import BAD_INPUT, Ended, EventKind, Job, Launch
from timellm.contract.layout import TrialFolder
from timellm.contract.words import utc
from timellm.machine.contention import LoadWatch
from timellm.machine.cores import oom_kills, usable_cores
from timellm.machine.gpu_watch import gpus_of
from timellm.machine.parent import die_with_parent
from timellm.machine.process import packages_path

WORKER_COMMAND = (sys.executable, "-m", "timellm.worker")
"""Command that trains; the path of a job file follows."""

LAUNCHER_COMMAND = (sys.executable, "-m", "search.tune.train_launcher")
"""Command that takes its place if a trial has several devices."""

SECONDS_TO_STOP = 60.0
"""A worker that was asked to end and has not ended after this time is killed."""

FULL_BYTES = 2**16
"""A disk with less room than this is full."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerSettings:
    """How workers are started; the same for every trial of a search."""

    command: tuple[str, ...] = WORKER_COMMAND
    """Program and first arguments; the path of the job file follows."""
    project_root: str
    """Folder that the worker's packages are found in."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables beside those of this process."""
    trial_timeout: float | None = None
    """Seconds after which a worker counts as hung; None for never."""
    server: tuple[str, ...] | None = None
    """Program that forks workers on one device; if None, each is started by `command`."""
    search: int | None = None
    """Process id of the search, if it has started Ray on this machine itself."""

    def to_dict(self) -> dict[str, Any]:
        """Every field, as JSON types."""
        return json.loads(json.dumps({**dataclasses.asdict(self), "environment": dict(self.environment)}))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "WorkerSettings":
        """The inverse of `to_dict`."""
        server = values.get("server")
        return cls(**{**values, "command": tuple(values["command"]), "server": server and tuple(server)})


class WorkerProcess:
    """A training in a process group of its own, which dies with this process.

    Args:
        settings: How it is started.
        job: What it does; files of an earlier attempt in the job's folder are removed.

    Raises:
        OSError: If the folder cannot be written or the program not be started.
    """

    def __init__(self, settings: WorkerSettings, job: Job) -> None:
        folder = TrialFolder(Path(job.run_dir))
        self._settings, self._folder = settings, folder
        self._clock = job.clock
        self._asked_to_stop: str | None = None
        self._kill_at = float("inf")
        self._killed: Ended | None = None
        self._events_read = 0
        self._partial = b""
        _clear(folder)
        if job.launch is not None:
            job = dataclasses.replace(job, launch=_launch(settings, job.launch))
        write_atomically(folder.job, job.to_json())
        self.started_at = time.time()
        self._oom_kills = oom_kills()
        environment = _environment(settings)
        gpus = gpus_of(str(job.config["device"]), environment)
        self._process = _start(settings, job, folder, environment)
        parent = self._process.parent if isinstance(self._process, ForkedProcess) else None
        self._load = LoadWatch(gpus, _spare_cores(settings, job, bool(gpus)), settings.search, parent)

    @property
    def pid(self) -> int:
        """Process id, which is the id of its group too."""
        return self._process.pid

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.time() - self.started_at

    def is_running(self) -> bool:
        """Whether it runs; one that has run or taken to end too long is killed first."""
        limit = self._settings.trial_timeout
        if time.time() > self._kill_at:
            self.kill(self._asked_to_stop or "The trial was told to end.")
        if limit is not None and self.seconds > limit and self._process.poll() is None:
            reason = f"The trial was ended after {limit:g} s, the limit of --trial_timeout."
            self.kill(f"{reason} Raise it if trials need longer.", State.FAILED)
        return self._process.poll() is None

    @property
    def timing_quality(self) -> str:
        """clean, or contended where other load has been seen since the first training step."""
        return self._load.quality(self.pid)

    def new_events(self) -> list[dict[str, Any]]:
        """Events since the last call, in order; call it often, because the load of others is watched here too."""
        events = self._read_events()
        if any(event.get("event") == EventKind.TRAINING for event in events) and self._process.poll() is None:
            self._load.begin(self.pid)
        self._load.look(self.pid)
        return events

    def _read_events(self) -> list[dict[str, Any]]:
        try:
            with self._folder.events.open("rb") as file:
                file.seek(self._events_read)
                fresh = file.read()
        except FileNotFoundError:
            return []
        self._events_read += len(fresh)
        *lines, self._partial = (self._partial + fresh).split(b"\n")
        return [event for line in lines if (event := _event(line)) is not None]

    def interrupt(self, reason: str) -> None:
        """Ask it to end in good order, once; it then reports state interrupted."""
        if self._asked_to_stop is None and self._process.poll() is None:
            self._asked_to_stop, self._kill_at = reason, time.time() + SECONDS_TO_STOP
            self._process.send_signal(signal.SIGTERM)

    def kill(self, reason: str, state: State = State.INTERRUPTED) -> None:
        """End it and all its children at once.

        Args:
            reason: Why, and what to do.
            state: What becomes of its trial; the first call decides.
        """
        if self._process.poll() is None:
            self._killed = self._killed or Ended(state, reason)
        self._sweep()
        self._process.wait()

    def outcome(self) -> dict[str, Any]:
        """What it measured, once it has ended: the fields of result.json, `state` and `error` always among them.

        `BAD_INPUT` is among them, and true, where the worker refused its input.
        """
        status = self._process.wait()
        self._sweep()
        result = _read_result(self._folder)
        if result is None:
            result = {**self._last_validation(), **self._death(status)}
        elif result.get("state") == State.INTERRUPTED and self._asked_to_stop:
            result["error"] = self._asked_to_stop
        elif status == ExitStatus.WRONG and result.get("state") == State.FAILED:
            result[BAD_INPUT] = True
        result.setdefault("started_at", utc(self.started_at))
        if self._clock != "error":
            result.setdefault("timing_quality", self.timing_quality)
        if result.get("total_seconds") is None:
            result["total_seconds"] = round(self.seconds, 3)
        return result

    def _sweep(self) -> None:
        """Kill what is left of the process group: loader workers outlive a killed parent for a while."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return

    def _last_validation(self) -> dict[str, Any]:
        self._events_read, self._partial = 0, b""
        found = [event for event in self._read_events() if event.get("event") == EventKind.VALIDATION]
        names = ("val_mse", "val_mae", "seconds_per_epoch")
        return {name: found[-1].get(name) for name in names} if found else {}

    def _death(self, status: int) -> dict[str, Any]:
        """State and error of a worker that left no result."""
        last = _last_line(self._folder.log)
        where = f"See {self._folder.log}."
        if self._killed is not None:
            return {"state": str(self._killed.state), "error": self._killed.reason}
        if self._asked_to_stop:
            return {"state": str(State.INTERRUPTED), "error": self._asked_to_stop}
        if status == -signal.SIGKILL and oom_kills() > self._oom_kills:
            error = (
                "The operating system killed the worker because the machine ran out of memory. "
                "Use a smaller --max_memory_gib, batch_size or num_workers."
            )
            return {"state": str(State.OUT_OF_MEMORY), "error": error}
        if status < 0:
            name = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
            return {"state": str(State.FAILED), "error": f"The worker was killed by {name} from outside. {where}"}
        error = f"The worker ended with status {status}: {last}"
        if not last or shutil.disk_usage(self._folder.path).free < FULL_BYTES:
            error = (
                f"The worker ended with status {status} and could not write why: the disk of {self._folder.path} is "
                "full, or files have reached their limit (ulimit -f). Free the disk or raise the limit."
            )
        return {"state": str(State.FAILED), "error": error}


def _start(
    settings: WorkerSettings, job: Job, folder: TrialFolder, environment: Mapping[str, str]
) -> subprocess.Popen[bytes] | ForkedProcess:
    """A worker, forked where that is possible."""
    if settings.server is not None and job.launch is None:
        forked = SERVERS.start(settings.server, settings.project_root, environment, folder.job, folder.log)
        if forked is not None:
            return forked
    with folder.log.open("ab") as log:
        return subprocess.Popen(
            [*(LAUNCHER_COMMAND if job.launch else settings.command), str(folder.job)],
            cwd=settings.project_root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


def _clear(folder: TrialFolder) -> None:
    folder.path.mkdir(parents=True, exist_ok=True)
    for path in (folder.result, folder.events, folder.log):
        path.unlink(missing_ok=True)


def _launch(settings: WorkerSettings, launch: Launch) -> Launch:
    """What the launcher must know to start the worker of each device."""
    return dataclasses.replace(
        launch,
        command=settings.command,
        project_root=settings.project_root,
        environment=dict(settings.environment),
    )


def _spare_cores(settings: WorkerSettings, job: Job, on_gpu: bool) -> int:
    """Cores that a worker leaves to others: to its neighbours, where several train together."""
    if job.launch is not None:
        return usable_cores()  # its processes are not children of the launcher; each is watched where it runs
    return max(0, usable_cores() - job.threads) if on_gpu or "RANK" in settings.environment else 0


def _environment(settings: WorkerSettings) -> dict[str, str]:
    path = packages_path(settings.project_root)
    return {**os.environ, **settings.environment, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _read_result(folder: TrialFolder) -> dict[str, Any] | None:
    """The worker's own result; None if it left no readable one."""
    try:
        result = json.loads(folder.result.read_text())
    except (OSError, ValueError):
        return None
    return result if isinstance(result, dict) and result.get("state") in set(State) else None


def _last_line(log: Path) -> str:
    try:
        return last_line(log.read_text(errors="replace"))[:500]
    except OSError:
        return ""
