"""The Ray Tune trainable: one worker process per trial, its validations reported as they come."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune

from search.tune.forked import SERVERS
from search.tune.worker_process import WorkerProcess, WorkerSettings
from timellm.contract.columns import CLEAN, SECONDS_PER_EPOCH, State
from timellm.contract.job import EventKind, Job
from timellm.contract.layout import TrialFolder

NOW = "now:"
"""Start of the content of a trial's stop file if the trial must end at once; a reason follows."""

OUTCOME = "outcome"
"""Key of a trial's last report: the worker's whole result as JSON text, because Tune flattens what is nested."""

IS_CONTENDED = "is_contended"
"""Key of every report: 1 if other load has been seen, otherwise 0. It serves trials that the scheduler stops."""

_SECONDS_BETWEEN_LOOKS = 0.1


def trial_config(
    *,
    trial_id: str,
    job: Job,
    worker: WorkerSettings,
    resources: Mapping[str, float],
    can_stop_early: bool,
    end_by: float | None,
    seconds_per_epoch: float | None = None,
) -> dict[str, Any]:
    """What Tune hands to the trainable for one trial.

    Args:
        trial_id: Name of the trial in the table.
        job: What its worker does.
        worker: How its worker is started.
        resources: What Ray reserves for it: CPU and GPU.
        can_stop_early: Whether the scheduler may stop it.
        end_by: Unix time at which the trial is told to end in good order; None for never.
        seconds_per_epoch: The trial's time, where it is known before its error.
    """
    return {
        "trial_id": trial_id,
        "job": job.to_dict(),
        "worker": worker.to_dict(),
        "resources": dict(resources),
        "can_stop_early": can_stop_early,
        "end_by": end_by,
        SECONDS_PER_EPOCH: seconds_per_epoch,
    }


def ask_to_stop(folder: Path, reason: str, *, now: bool = False) -> None:
    """End the trial of a folder, which may not have begun yet: in good order, or at once."""
    folder.mkdir(parents=True, exist_ok=True)
    TrialFolder(folder).stop.write_text((NOW if now else "") + reason)


def forget_stop(folder: Path) -> None:
    """Drop what a trial of this folder was once told, before it is run again."""
    TrialFolder(folder).stop.unlink(missing_ok=True)


def follow(worker: WorkerProcess, folder: TrialFolder, end_by: float | None) -> dict[str, Any] | None:
    """Wait for a worker's next validation.

    Args:
        worker: The process.
        folder: Its folder, where a stop file may appear.
        end_by: Unix time at which it is told to end in good order; None for never.

    Returns:
        The event of the validation; None once the worker has ended.
    """
    while True:
        running = worker.is_running()
        validations = [event for event in worker.new_events() if event.get("event") == EventKind.VALIDATION]
        if not running:
            return None
        if validations:
            return validations[-1]
        if end_by is not None and time.time() > end_by:
            worker.interrupt("The time budget was over before the trial ended. Raise --time_budget.")
        _heed_stop_file(worker, folder)
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _heed_stop_file(worker: WorkerProcess, folder: TrialFolder) -> None:
    try:
        reason = folder.stop.read_text()
    except OSError:
        return
    if reason.startswith(NOW):
        worker.kill(reason.removeprefix(NOW))
    elif reason:
        worker.interrupt(reason)


class WorkerTrainable(tune.Trainable):
    """Runs one worker per trial; each step ends with a validation, the last one with the whole result.

    The actor is reused for the next trial, so that little time passes between two of them.
    """

    _worker: WorkerProcess | None = None

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """What Ray reserves for a trial."""
        return tune.PlacementGroupFactory([config["resources"]])

    def setup(self, config: dict[str, Any]) -> None:
        """Start the worker of a trial."""
        self._end_worker("The scheduler stopped the trial.")
        job = Job.from_dict(config["job"])
        self._folder = TrialFolder(Path(job.run_dir))
        self._end_by = config["end_by"]
        self._failure: str | None = None
        settings = WorkerSettings.from_dict(config["worker"])
        try:
            self._worker = WorkerProcess(settings, job)
        except OSError as error:
            self._failure = f"The trial's folder or worker could not be made: {error}. Free the disk or the folder."

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial in the same actor."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the next validation or the end."""
        if self._worker is None:
            return {"done": True, OUTCOME: json.dumps({"state": State.FAILED, "error": self._failure})}
        event = follow(self._worker, self._folder, self._end_by)
        if event is not None:
            return {**finite(event), IS_CONTENDED: int(self._worker.timing_quality != CLEAN)}
        outcome, self._worker = self._worker.outcome(), None
        return {**finite(outcome), "done": True, OUTCOME: json.dumps(outcome)}

    def cleanup(self) -> None:
        """End a worker that still runs."""
        self._end_worker("The search ended before the trial did.")
        SERVERS.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to keep here: the worker writes its own checkpoint into the trial's folder."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """A trial is never continued in the middle: it is run again."""

    def _end_worker(self, reason: str) -> None:
        if self._worker is not None:
            self._worker.kill(reason)
            self._worker = None


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a report that are finite: Tune and its loggers get no other."""
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
