"""Searches replayed with time and error apart: the project's own loop over recorded tables, on a simulated clock."""

import dataclasses
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.factorial import Conditions, Factorial, Key, Recorded, is_complete
from benchmarks.replay import Replay, Replayed, Step, objectives
from results.analysis.pareto import DEFAULT_TIME_WEIGHT
from search.decide.clocks.confirmation import Confirmation
from search.decide.clocks.schedulers import Scheduler
from search.decide.ledger import Ledger, Row, make_row
from search.decide.loop import Loop
from search.decide.propose.samplers import make_sampler
from search.decide.propose.study import Proposal, SearchStudy, StudyOptions
from search.decide.spend.costs import RunCosts
from search.decide.spend.fidelity import Fidelity
from search.decide.spend.limits import Limits
from search.decide.spend.plan import Plan
from search.decide.spend.planning import Planner
from search.decide.spend.spending import Spending
from search.decide.spend.work import Work
from search.decide.workplace import Workplace
from spaces import Space
from timellm.contract.columns import CLEAN, SECONDS_PER_EPOCH, VAL_MSE, State, knob_column
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.contract.job import CLOCKS, Clock, Job
from timellm.contract.layout import RunFolder


@dataclass(frozen=True, slots=True)
class Sharing:
    """What the trials of a search share.

    Attributes:
        words: Name of the row.
        is_forked: Workers are forked from one that has imported everything.
        errors: One error serves every way to compute the same numbers; None: each trial is one run for both.
        times: One time serves all numbers that take as long.
    """

    words: str
    is_forked: bool = False
    errors: bool = False
    times: bool = False

    @property
    def is_apart(self) -> bool:
        """Whether time and error are measured by runs of their own."""
        return self.errors or self.times


SHARINGS = (
    Sharing("nothing: whole trials"),
    Sharing("starts", is_forked=True),
    Sharing("starts and errors", is_forked=True, errors=True),
    Sharing("starts, errors and times", is_forked=True, errors=True, times=True),
)
"""From a search of whole trials to one as it is today."""


@dataclass(frozen=True)
class Tables:
    """What was recorded of a space.

    Attributes:
        table: That of whole runs.
        conditions: What they were recorded with.
        runs: What each clock measured of each configuration, its own or that of a run that measures the same.
    """

    table: Factorial
    conditions: Conditions
    runs: Mapping[Clock, Mapping[Key, Recorded]]

    @classmethod
    def load(cls, path: Path, space: Space) -> "Tables":
        """Read the tables.

        Raises:
            InputError: If a run is missing, or what they were recorded with.
        """
        conditions = Conditions.read(path)
        if conditions is None or conditions.forked_startup_seconds is None:
            raise InputError(
                f"{path} needs {path.with_suffix('.json')} beside it with the start-ups of started and forked workers. "
                "Move them away and record them anew: `python -m benchmarks.record_factorial`."
            )
        tables = [Factorial(space, path, clock) for clock in CLOCKS]
        runs = {table.clock: table.require_whole() for table in tables}
        found = {
            table.clock: {key: runs[table.clock][stand_in] for key, stand_in in table.stand_ins().items()}
            for table in tables
        }
        return cls(tables[0], conditions, found)

    def seconds(self, clock: Clock) -> list[float]:
        """What each run of a clock took, without its start."""
        runs = {id(run): run for run in self.runs[clock].values()}
        return [run.last.seconds for run in runs.values()]

    def startup_seconds(self, sharing: Sharing) -> float:
        """What each start of a worker costs."""
        forked = self.conditions.forked_startup_seconds
        return forked if sharing.is_forked and forked is not None else self.conditions.startup_seconds

    def whole_trials(self, startup_seconds: float) -> Replay:
        """Replays of whole trials, which find the errors and times that were measured apart, at their own cost.

        Args:
            startup_seconds: What each start of a worker costs.
        """
        merged = {key: self._merged(key, run) for key, run in self.runs["together"].items()}
        conditions = dataclasses.replace(self.conditions, startup_seconds=startup_seconds)
        return Replay(table=self.table, recorded=merged, conditions=conditions)

    def _merged(self, key: Key, run: Recorded) -> Recorded:
        error, time = self.runs["error"][key], self.runs["time"][key]
        if not is_complete(run) or State.COMPLETE not in (error.state, time.state):
            return run
        parts = [
            dataclasses.replace(part, val_mse=at_rung.val_mse)
            for part, at_rung in zip(run.validations, error.validations, strict=True)
        ]
        last = dataclasses.replace(parts[-1], seconds_per_epoch=time.last.seconds_per_epoch)
        return dataclasses.replace(run, validations=(*parts[:-1], last))


class _InMemory(Ledger):
    """A table that is not written, with one score: a replay keeps what else it needs."""

    def record(self, proposal: Proposal, config: RunConfig, outcome: Mapping[str, Any]) -> Row:
        """Add the row of an ended trial, with the joint score to the first one, the baseline."""
        row = make_row(proposal, config, outcome)
        if row["state"] == State.COMPLETE:
            base = self.rows[0] if self.rows else row
            mse, seconds = (math.log(row[name] / base[name]) for name in (VAL_MSE, SECONDS_PER_EPOCH))
            row["joint_score"] = mse + DEFAULT_TIME_WEIGHT * seconds
        self.rows.append(row)
        return row

    def write(self) -> None:
        """Nothing."""


@dataclass
class _Heard:
    """What the loop says: whose run starts, and rows."""

    proposal: Proposal | None = None
    rows: list[Mapping[str, Any]] = field(default_factory=list)

    def planned(self, plan: Plan, rows: Sequence[Mapping[str, Any]]) -> None:
        """The plan is given."""

    def started(self, proposal: Proposal, what: str) -> None:
        """A run of a trial starts."""
        self.proposal = proposal

    def row(self, row: Mapping[str, Any] | None, rows: Sequence[Mapping[str, Any]]) -> None:
        """A trial has ended."""
        if row is not None:
            self.rows.append(row)

    def controls(self, controls: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> None:
        """There are none."""

    def note(self, text: str, *, is_kept: bool) -> None:
        """Notes are for readers."""


class ReplayApart:
    """Searches of recorded tables whose trials measure time and error apart.

    Args:
        tables: The tables.
        enough: Share of the hypervolume at which a search ends.
    """

    def __init__(self, tables: Tables, enough: float) -> None:
        self._tables, self._enough = tables, enough
        self._whole = tables.whole_trials(tables.conditions.startup_seconds)

    def run(
        self,
        sharing: Sharing,
        sampler: str,
        scheduler: str,
        seed: int,
        *,
        needed: float = 0.0,
        most_seconds: float = math.inf,
    ) -> Replayed:
        """One search.

        Args:
            sharing: What its trials share.
            sampler: Name of the sampler.
            scheduler: Name of the scheduler, which judges the training of errors.
            seed: Of the sampler.
            needed: Share of the hypervolume without which a search is not worth going on, as `Replay.run` takes it.
            most_seconds: Simulated wall clock at which it ends.

        Returns:
            Its trials; their seconds hold every start.
        """
        with tempfile.TemporaryDirectory() as folder:
            search = _Search(self._tables, self._whole, sharing, self._whole.scheduler(scheduler))
            loop = search.loop(RunFolder(Path(folder)), sampler, seed)
            return search.run(loop, self._enough, needed, most_seconds)


class _Search:
    """One search: answers the loop's jobs from the tables and keeps the clock."""

    def __init__(self, tables: Tables, whole: Replay, sharing: Sharing, scheduler: Scheduler) -> None:
        self._tables, self._whole, self._sharing, self._scheduler = tables, whole, sharing, scheduler
        self._startup = tables.startup_seconds(sharing)
        self._heard, self._seconds, self._told = _Heard(), 0.0, 0

    def loop(self, folder: RunFolder, sampler: str, seed: int) -> Loop:
        """The loop of a search of the whole space, with one seed and without controls."""
        space, conditions = self._tables.table.space, self._tables.conditions
        ledger = _InMemory(folder, DEFAULT_TIME_WEIGHT)
        study = SearchStudy(space, StudyOptions(name="replay", sampler=make_sampler(sampler, space, seed), seed=seed))
        baseline = RunConfig.from_dict(space.settings(space.baseline))
        windows = dict(zip(("train", "validation", "test"), [conditions.train_samples] * 3, strict=True))
        fidelity = Fidelity.of_samples(conditions.train_samples)
        rungs = self._scheduler.plan(fidelity, baseline, conditions.train_samples)
        return Loop(
            space=space,
            study=study,
            ledger=ledger,
            folder=folder,
            run_config=lambda proposal: RunConfig.from_dict(space.settings(proposal.settings)),
            planner=Planner(
                asked=conditions.train_samples,
                clocks="apart",
                space=space,
                config=baseline,
                baseline=baseline,
                plans=[],
                windows=windows,
                slowdown={},
                budget=None,
            ),
            costs=RunCosts(Work(), windows),
            workplace=Workplace(),
            limits=Limits(deadline=None, budget_seconds=None, num_trials=None),
            confirmation=Confirmation(space, ledger, 0, seed, study.new_trial_id),
            listener=self._heard,
            rungs_of=lambda plan: rungs,
            plan=Plan(fidelity=fidelity, spending=Spending.unknown(seeds=1)),
            has_controls=True,
            seed=baseline.seed,
            clock=lambda: self._seconds,
        )

    def run(self, loop: Loop, enough: float, needed: float, most_seconds: float) -> Replayed:
        """Answer the loop's jobs until enough is found, the needed is lost, the time is over, or nothing is left."""
        steps: list[Step] = []
        points: list[tuple[float, float]] = []
        untried = {key: objectives(run.last) for key, run in self._whole.recorded.items() if is_complete(run)}
        begun = 0.0
        while True:
            job = loop.next()
            if job is not None:
                loop.ended(job, self._outcome(loop, job))
            for row in self._heard.rows[self._told :]:
                self._told += 1
                self._seconds += self._unshared(row)
                is_whole = row["state"] == State.COMPLETE
                untried.pop(self._key(row), None)
                if is_whole:
                    points.append(objectives(self._whole.recorded[self._key(row)].last))
                steps.append(Step(self._seconds - begun, self._whole.share(points), is_whole))
                begun = self._seconds
            is_found = bool(steps) and steps[-1].share >= enough
            is_lost = self._whole.share([*points, *untried.values()]) < needed
            if job is None or self._seconds >= most_seconds or is_found or is_lost:
                return Replayed(steps, 0.0)

    def _outcome(self, loop: Loop, job: Job) -> dict[str, Any]:
        """What a worker would answer; the clock goes on by what it would have taken."""
        proposal = self._heard.proposal
        assert proposal is not None
        run = self._tables.runs[job.clock][self._tables.table.key(proposal.settings)]
        time, reached, state = loop.seconds_per_epoch(job), run.last, run.state
        for part in run.validations[:-1] if job.rungs and time else ():
            values = (part.val_mse or math.inf, time or math.inf)
            if not self._scheduler.passes(proposal.trial_id, part.samples, values):
                reached, state = part, str(State.STOPPED_EARLY)
                break
        self._seconds += self._startup + reached.seconds
        outcome = {
            "state": str(state),
            "error": None,
            "seed": int(job.config["seed"]),
            "startup_seconds": self._startup,
        }
        if job.clock == "time":
            measured = {"seconds_per_epoch": reached.seconds_per_epoch, "timing_quality": CLEAN}
        else:
            measured = {"val_mse": reached.val_mse, "samples": reached.samples}
        return {**outcome, **measured, "total_seconds": reached.seconds}

    def _unshared(self, row: Mapping[str, Any]) -> float:
        """Seconds of the runs that a trial was spared, though trials of this search do not share so much."""
        key, seconds = self._key(row), 0.0
        own = (None, row["trial_id"])
        if not self._sharing.times and row.get("time_from") not in own:
            seconds += self._startup + self._tables.runs["time"][key].last.seconds
        if not self._sharing.errors and row.get("error_from") not in own:
            seconds += self._startup + self._tables.runs["error"][key].last.seconds
        return seconds

    def _key(self, row: Mapping[str, Any]) -> Key:
        space = self._tables.table.space
        return self._tables.table.key({knob.name: row[knob_column(knob.name)] for knob in space.knobs})
