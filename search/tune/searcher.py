"""The Ray Tune searcher: a thin adapter around the search's loop."""

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from search.decide.loop import Loop
from search.tune.trainable import IS_CONTENDED, OUTCOME, ask_to_stop, forget_stop, trial_config
from search.tune.worker_process import FULL_BYTES, SECONDS_TO_STOP, WorkerSettings
from timellm.contract.columns import CLEAN, CONTENDED, State
from timellm.contract.config import RunConfig
from timellm.contract.errors import error_words
from timellm.contract.job import Job
from timellm.contract.layout import TrialFolder
from timellm.contract.words import utc

SECONDS_TO_NOTICE = 30.0
"""A job that should have been ended this long ago, but did not report its end, is given up, and Ray with it."""
SECONDS_TO_STOP_NOW = 15.0
"""The same after a second Ctrl-C, which kills workers."""


class LoopSearcher(Searcher):
    """Hands the jobs of a loop to Tune, and their outcomes back to the loop.

    Args:
        loop: The search.
        trials: Folder of all trials; a job outside of it is named after its own folder.
        worker: How the worker of a run is started.
        request: What Ray reserves for a run.
        dead: Which part of Ray has died, in words; None while none has.
    """

    def __init__(
        self,
        loop: Loop,
        *,
        trials: Path,
        worker: Callable[[RunConfig], WorkerSettings],
        request: Callable[[RunConfig], dict[str, float]],
        dead: Callable[[], str | None] = lambda: None,
    ) -> None:
        super().__init__()
        self._loop, self._trials, self._worker, self._request = loop, trials, worker, request
        self._dead = dead
        self._jobs: dict[str, tuple[Job, float]] = {}
        self._end_by: dict[str, float | None] = {}
        self._stop_by: float | None = None
        self.failure: str | None = None
        self.is_busy = False

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles the searcher for a way of resuming that is not used here."""
        return {}

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Tune's own parameters are not used."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """The next job as a trial of Tune's, None where there is none yet, or FINISHED at the end of the search."""
        with self._busy():
            return self._suggest(trial_id)

    def _suggest(self, trial_id: str) -> Any:
        try:
            job = self._loop.next()
        except Exception as problem:  # Tune would break off, and lose the running trials' rows
            self.break_off(f"nothing more could be proposed ({error_words(problem)})")
            job = None
        if job is None:
            return None if self._loop.is_running and not self._loop.stop_reason else Searcher.FINISHED
        folder, config = Path(job.run_dir), RunConfig.from_dict(dict(job.config))
        forget_stop(folder)
        self._jobs[trial_id] = (job, time.time())
        self._end_by[trial_id] = self._loop.end_by(job)
        if self._loop.stop_reason:  # Ctrl-C came in between
            ask_to_stop(folder, self._loop.stop_reason)
        return trial_config(
            trial_id=self._name(folder),
            job=job,
            worker=self._worker(config),
            resources=self._request(config),
            can_stop_early=self._loop.can_stop_early(job),
            seconds_per_epoch=self._loop.seconds_per_epoch(job),
            end_by=self._end_by[trial_id],
        )

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the loop how a job ended.

        Args:
            trial_id: Tune's name of it.
            result: Its last report: the worker's outcome, or the validation that the scheduler stopped it at.
            error: Whether its actor failed.
        """
        with self._busy():
            if trial_id in self._jobs:
                self._complete(trial_id, result, error)

    def _complete(self, trial_id: str, result: dict[str, Any] | None, error: bool) -> None:
        if error and not self._loop.stop_reason and (dead := self._dead()):
            self.break_off(dead)  # it took the trial's actor with it
        job, started_at = self._jobs.pop(trial_id)
        self._end_by.pop(trial_id, None)
        report = result or {}
        text = report.get(OUTCOME)
        outcome = json.loads(text) if text else self._outcome_without_worker(job, started_at, report, error)
        if outcome.get("state") == State.FAILED and _is_full(Path(job.run_dir)):
            failure = f"the disk of {job.run_dir} is full"  # the settings are not to blame, so they are tried again
            outcome = {**outcome, "state": str(State.INTERRUPTED), "error": f"The trial failed, because {failure}."}
            self.break_off(failure)
        try:
            self._loop.ended(job, outcome)
            if self._loop.refusal and self._stop_by is None:
                self.stop(self._loop.refusal)
        except Exception as problem:  # Tune would log it and go on, and lose the row
            self.break_off(f"{self._name(Path(job.run_dir))} could not be recorded ({error_words(problem)})")

    def stop(self, reason: str, *, now: bool = False) -> None:
        """End the search: no job starts any more, and those that run end in good order, or at once."""
        self._stop_by = time.time() + (SECONDS_TO_STOP_NOW if now else SECONDS_TO_STOP + SECONDS_TO_NOTICE)
        for job in self._loop.stop(reason):
            with contextlib.suppress(OSError):  # a full disk, or no folder any more
                ask_to_stop(Path(job.run_dir), reason, now=now)

    def overdue(self) -> str | None:
        """What should have ended long ago, in words: Ray no longer answers. None while nothing is late."""
        ends = [end_by for end_by in list(self._end_by.values()) if end_by is not None]
        late = SECONDS_TO_STOP + SECONDS_TO_NOTICE
        if ends and time.time() > max(ends) + late:
            return f"nothing was heard of a trial that should have ended {late:g} s ago"
        if self._stop_by is not None and time.time() > self._stop_by:
            return "Ray did not end the trials that it was told to end"
        return None

    def break_off(self, failure: str) -> None:
        """End the search for what has gone wrong with it."""
        self.failure = failure
        self.stop(f"The search broke off: {failure}. Continue with --resume.", now=True)

    def close(self) -> None:
        """Give an end to every job that Tune has left without one."""
        for trial_id in list(self._jobs):
            self.on_trial_complete(trial_id, error=True)
        try:
            self._loop.close()
        except Exception as problem:
            self.failure = self.failure or f"the last rows could not be recorded ({error_words(problem)})"

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study and the table are on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: a search is resumed from the study and the table."""

    @contextlib.contextmanager
    def _busy(self) -> Iterator[None]:
        """While rows are written."""
        self.is_busy = True
        try:
            yield
        finally:
            self.is_busy = False

    def _name(self, folder: Path) -> str:
        """Name of a job for Tune: `t0001` for a trial's first run, `t0001-error` for one in a folder below."""
        if folder.is_relative_to(self._trials):
            return "-".join(folder.relative_to(self._trials).parts)
        return folder.name

    def _outcome_without_worker(
        self, job: Job, started_at: float, report: Mapping[str, Any], error: bool
    ) -> dict[str, Any]:
        """The outcome of a job that Tune ended: by the scheduler, at the end of the search, or with its actor."""
        common = {"started_at": utc(started_at), "total_seconds": round(time.time() - started_at, 3)}
        samples = report.get("samples")
        if samples is not None and not error:
            return {
                **common,
                **{name: report.get(name) for name in ("val_mse", "val_mae", "seconds_per_epoch", "samples")},
                "state": str(State.STOPPED_EARLY),
                "error": f"Stopped at the rung of {samples} training windows: others of that rung were better.",
                "train_samples": samples,
                "val_samples": job.config["val_samples"],
                "is_projected": job.config["train_samples"] is not None,
                "timing_quality": CONTENDED if report.get(IS_CONTENDED) else CLEAN,
            }
        if self._loop.stop_reason:
            return {**common, "state": str(State.INTERRUPTED), "error": self._loop.stop_reason}
        log = TrialFolder(Path(job.run_dir)).log
        return {**common, "state": str(State.FAILED), "error": f"The process that watched the worker died. See {log}."}


def _is_full(folder: Path) -> bool:
    """Whether nothing can be written any more at a folder's place."""
    try:
        return shutil.disk_usage(folder).free < FULL_BYTES
    except OSError:
        return False
