"""The Ray Tune searcher: hands out the study's proposals while there is time, and records how they end."""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ray.tune.search import Searcher

from search.decide.confirmation import Confirmation
from search.decide.ledger import Ledger, Row
from search.decide.retiming import Retiming, end_note, retimed_folder, start_note
from search.decide.study import Proposal, SearchStudy
from search.tune.trainable import IS_CONTENDED, OUTCOME, ask_to_stop, forget_stop, trial_config
from search.tune.worker_process import WorkerSettings, iso
from timellm.contract.columns import CONFIRM, SAMPLER, State
from timellm.contract.config import RunConfig
from timellm.contract.job import Job
from timellm.contract.layout import RunFolder, TrialFolder
from timellm.machine.contention import CLEAN, CONTENDED


@dataclass(kw_only=True)
class Limits:
    """When a search ends.

    Attributes:
        deadline: Unix time after which no trial starts; None for never.
        num_trials: Rows of the table at most, confirmations not counted; None for no limit.
        expected_seconds: Length of a trial as the plan expects it; None if it knows none.
        budget_seconds: The whole time budget.
    """

    deadline: float | None = None
    num_trials: int | None = None
    expected_seconds: float | None = None
    budget_seconds: float | None = None


@dataclass
class _Running:
    proposal: Proposal
    config: RunConfig
    folder: TrialFolder
    first_row: Row | None = None
    """Row of the first timing, where this is the second."""
    started_at: float = field(default_factory=time.time)


class StudySearcher(Searcher):
    """A searcher for Tune around a `SearchStudy`; it writes every row before it tells the study.

    Args:
        study: What to try.
        ledger: Where rows go.
        folder: The run folder.
        worker: How the worker of a run is started.
        make_job: What it does in a folder.
        request: What Ray reserves for a run.
        make_config: The run configuration of a proposal.
        limits: When to end.
        confirmation: What is run again at the end.
    """

    def __init__(
        self,
        *,
        study: SearchStudy,
        ledger: Ledger,
        folder: RunFolder,
        worker: Callable[[RunConfig], WorkerSettings],
        make_job: Callable[[RunConfig, TrialFolder], Job],
        request: Callable[[RunConfig], dict[str, float]],
        make_config: Callable[[Proposal], RunConfig],
        limits: Limits,
        confirmation: Confirmation,
    ) -> None:
        super().__init__()
        self._study, self._ledger, self._folder, self._worker = study, ledger, folder, worker
        self._request, self._make_job = request, make_job
        self._make_config, self._limits, self._confirmation = make_config, limits, confirmation
        self._running: dict[str, _Running] = {}
        self._retiming, self._again = Retiming(), list[_Running]()
        self._stop_reason: str | None = None
        self.on_start: Callable[[Proposal], None] = lambda proposal: None
        self.after_row: Callable[[], None] = lambda: None
        self.on_note: Callable[[str, bool], None] = lambda note, is_kept: None
        self.ended_because = ""
        self.failure: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles the searcher for a way of resuming that is not used here."""
        return {}

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Tune's own parameters are not used."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """The next trial's configuration, or FINISHED at the end of the search."""
        running = self._next()
        if running is None:
            return None if self._running and not self._stop_reason else Searcher.FINISHED
        forget_stop(running.folder.path)
        self._running[trial_id] = running
        if self._stop_reason:  # Ctrl-C came in between
            ask_to_stop(running.folder.path, self._stop_reason)
        self.on_start(running.proposal)
        return trial_config(
            trial_id=running.proposal.trial_id,
            job=self._make_job(running.config, running.folder),
            worker=self._worker(running.config),
            resources=self._request(running.config),
            can_stop_early=running.proposal.source == SAMPLER and running.first_row is None,
            end_by=self._end_by(),
        )

    def _next(self) -> _Running | None:
        """What is run next: a second timing, or else a new trial; None if there is neither."""
        if self._again and not self._stop_reason:
            return self._again.pop(0)
        proposal = self._next_proposal()
        if proposal is None:
            return None
        return _Running(proposal, self._make_config(proposal), self._folder.trial(proposal.trial_id))

    def _next_proposal(self) -> Proposal | None:
        """The sampler's next trial, or behind its last one the next confirmation; None at the end."""
        if not self.ended_because:
            self.ended_because = self._reason_to_end() or ""
            proposal = None if self.ended_because else self._study.propose()
            if proposal is not None:
                return proposal
            self.ended_because = self.ended_because or "every configuration of the space has been tried"
        if self._running or self._stop_reason or not self._has_time(reserve=0.0):
            return None
        return self._confirmation.next()

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Write the row of an ended trial and tell the study.

        Args:
            trial_id: Tune's name of the trial.
            result: Its last report: the worker's outcome, or the validation that the scheduler stopped it at.
            error: Whether its actor failed.
        """
        if trial_id not in self._running:
            return
        running, report = self._running.pop(trial_id), result or {}
        text = report.get(OUTCOME)
        outcome = json.loads(text) if text else self._outcome_without_worker(running, report, error)
        try:
            self._take(running, outcome)
            self.after_row()
        except Exception as problem:  # Tune would log it and go on, and lose the row
            self.failure = f"{running.proposal.trial_id} could not be recorded ({_words(problem)})"
            self.stop(self.failure)

    def _take(self, running: _Running, outcome: Mapping[str, Any]) -> None:
        """Record an ended trial; the study is told once, after a second timing if there is one."""
        proposal, row = running.proposal, running.first_row
        if row is None:
            row = self._ledger.record(proposal, running.config, outcome)
            if self._is_timed_again(proposal, row):
                folder = retimed_folder(running.folder)
                self._again.append(_Running(proposal, running.config, folder, first_row=row))
                self.on_note(start_note(proposal.trial_id), False)
                return
        else:
            counts = self._retiming.counts(outcome)
            if counts:
                row = self._ledger.record(proposal, running.config, outcome)
            else:
                self._ledger.on_row(row)
            self.on_note(end_note(proposal.trial_id, counts), True)
        self._study.finish(proposal.trial_id, row)

    def _is_timed_again(self, proposal: Proposal, row: Row) -> bool:
        if not self._retiming.is_wanted(row) or self._stop_reason:
            return False
        return self._has_time(0.0 if proposal.source == CONFIRM else self._reserve())

    def stop(self, reason: str, *, now: bool = False) -> None:
        """End the search: no trial starts any more, and those that run end in good order, or at once."""
        self._stop_reason = reason
        for running in list(self._running.values()):
            ask_to_stop(running.folder.path, reason, now=now)

    def close(self) -> None:
        """Give a row to every trial that Tune has left without an end, and tell the study of all."""
        for trial_id in list(self._running):
            self.on_trial_complete(trial_id, error=True)
        for running in self._again:
            if running.first_row is not None:
                self._study.finish(running.proposal.trial_id, running.first_row)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study and the table are on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: a search is resumed from the study and the table."""

    def _reason_to_end(self) -> str | None:
        """Why no trial of the sampler is started any more; None if one may be."""
        if self._stop_reason:
            return self._stop_reason
        ended = [row for row in self._ledger.rows if row["source"] != CONFIRM and row["state"] != State.INTERRUPTED]
        new = [running for running in self._running.values() if running.first_row is None]
        most = self._limits.num_trials
        if most is not None and len(ended) + len(new) >= most:
            return f"{most} trials have been run"
        return None if self._has_time(self._reserve()) else "the time that is left is too short for another trial"

    def _reserve(self) -> float:
        """Seconds that are kept for confirmations."""
        return self._confirmation.trials * (self.expected_seconds() or 0.0)

    def _has_time(self, reserve: float) -> bool:
        """Whether at least half of the next trial fits the time budget.

        Args:
            reserve: Seconds that are kept for later.
        """
        if self._limits.deadline is None:
            return True
        left = self._limits.deadline - time.time() - reserve
        return left > (self.expected_seconds() or 0.0) / 2

    def expected_seconds(self) -> float | None:
        """Length of the next trial: the median of the sampler's complete ones, or else what the plan expects."""
        complete = self._ledger.complete()
        own = [row["total_seconds"] for row in complete if row["source"] == SAMPLER and row["total_seconds"]]
        every = [row["total_seconds"] for row in complete if row["total_seconds"]]
        chosen = own if len(own) >= 3 else every
        return statistics.median(chosen) if chosen else self._limits.expected_seconds

    def _end_by(self) -> float | None:
        """When a running trial is told to end: one trial's length behind the deadline."""
        if self._limits.deadline is None:
            return None
        lengths = [row["total_seconds"] for row in self._ledger.complete() if row["total_seconds"]]
        known = max(lengths, default=self._limits.expected_seconds or self._limits.budget_seconds or 0.0)
        return self._limits.deadline + known

    def _outcome_without_worker(self, running: _Running, report: Mapping[str, Any], error: bool) -> dict[str, Any]:
        """The outcome of a trial that Tune ended: by the scheduler, at the end of the search, or with its actor."""
        samples = report.get("samples")
        if samples is not None and not error:
            return {
                **{name: report.get(name) for name in ("val_mse", "val_mae", "seconds_per_epoch")},
                "state": str(State.STOPPED_EARLY),
                "error": f"Stopped at the rung of {samples} training windows: others of that rung were better.",
                "train_samples": samples,
                "val_samples": running.config.val_samples,
                "is_projected": running.config.train_samples is not None,
                "started_at": iso(running.started_at),
                "total_seconds": round(time.time() - running.started_at, 3),
                "timing_quality": CONTENDED if report.get(IS_CONTENDED) else CLEAN,
            }
        common = {"started_at": iso(running.started_at), "total_seconds": round(time.time() - running.started_at, 3)}
        if self._stop_reason:
            return {**common, "state": str(State.INTERRUPTED), "error": self._stop_reason}
        log = running.folder.log
        return {**common, "state": str(State.FAILED), "error": f"The process that watched the worker died. See {log}."}


def _words(problem: Exception) -> str:
    """An exception on one line."""
    return f"{type(problem).__name__}: {next(iter(str(problem).splitlines()), '')}"
