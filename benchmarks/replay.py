"""Searches replayed over a recorded table: the project's own study and scheduler, on a simulated clock."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import moocore
import numpy as np
import optuna
import scipy.stats

from benchmarks.factorial import Conditions, Factorial, Key, Recorded, Validation, is_complete
from search.decide.clocks.schedulers import SCHEDULERS, Scheduler
from search.decide.propose.samplers import make_sampler
from search.decide.propose.study import Proposal, SearchStudy, StudyOptions
from search.decide.spend.fidelity import Fidelity
from search.setup.manifest import REFERENCE_MSE, REFERENCE_SECONDS
from spaces import Space
from timellm.contract.columns import SAMPLER, SECONDS_PER_EPOCH, VAL_MSE, State, knob_column
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError

MakeSampler = Callable[[str, Space, int], optuna.samplers.BaseSampler]


@dataclass(frozen=True, slots=True)
class Step:
    """A trial of a replayed search.

    Attributes:
        seconds: Training and validations that it took, without its start-up.
        share: Hypervolume of the front after it, relative to that of every configuration.
        is_complete: Whether it ran to its end.
    """

    seconds: float
    share: float
    is_complete: bool


@dataclass(frozen=True, slots=True)
class Replayed:
    """A replayed search.

    Attributes:
        steps: Its trials, in order.
        thinking_seconds: CPU seconds of the sampler for each trial, the mean.
    """

    steps: list[Step]
    thinking_seconds: float

    def with_starts(self, startup_seconds: float) -> "Replayed":
        """The same trials, their seconds with the start of each."""
        steps = [dataclasses.replace(step, seconds=step.seconds + startup_seconds) for step in self.steps]
        return Replayed(steps, self.thinking_seconds)

    def seconds_to(self, share: float, startup_seconds: float) -> float:
        """Wall clock to this share of the hypervolume; infinite if it is never reached."""
        ends = itertools.accumulate(step.seconds + startup_seconds for step in self.steps)
        return next((end for end, step in zip(ends, self.steps, strict=True) if step.share >= share), math.inf)

    def trials_to(self, share: float) -> float:
        """Trials to this share of the hypervolume; infinite if it is never reached."""
        return next((number for number, step in enumerate(self.steps, 1) if step.share >= share), math.inf)

    def share_at(self, seconds: float, startup_seconds: float) -> float:
        """Share of the hypervolume at a wall clock."""
        ends = itertools.accumulate(step.seconds + startup_seconds for step in self.steps)
        ended = [step.share for end, step in zip(ends, self.steps, strict=True) if end <= seconds]
        return ended[-1] if ended else 0.0


class Hypervolume:
    """Hypervolumes relative to that of the whole table, on logarithms of both objectives.

    Args:
        recorded: The whole table.
        first: The first trial of a search, from which the reference point is made.
    """

    def __init__(self, recorded: Mapping[Key, Recorded], first: Recorded) -> None:
        mse, seconds = objectives(first.last)
        self._corner = np.log([REFERENCE_MSE * mse, REFERENCE_SECONDS * seconds])
        points = [objectives(run.last) for run in recorded.values() if is_complete(run)]
        self._whole = float(moocore.hypervolume(np.log(points), ref=self._corner))

    def share(self, points: list[tuple[float, float]]) -> float:
        """Share of these points [points, (mse, seconds)]."""
        return float(moocore.hypervolume(np.log(points), ref=self._corner)) / self._whole if points else 0.0


@dataclass(kw_only=True)
class Replay:
    """Searches of one table.

    Attributes:
        table: What was recorded, all of it.
        recorded: Its configurations.
        conditions: Its rungs.
        enough: Share of the hypervolume at which a search ends.
        make_sampler: The sampler of a name.
    """

    table: Factorial
    recorded: Mapping[Key, Recorded]
    conditions: Conditions
    enough: float = 0.97
    make_sampler: MakeSampler = make_sampler
    _volume: Hypervolume = field(init=False)

    def __post_init__(self) -> None:
        """Measure the whole table."""
        space = self.table.space
        self._volume = Hypervolume(self.recorded, self.recorded[self.table.key(space.settings(space.baseline))])

    @property
    def front_size(self) -> int:
        """Configurations that no other beats in both objectives."""
        points = [objectives(run.last) for run in self.recorded.values() if is_complete(run)]
        return int(moocore.is_nondominated(np.array(points)).sum())

    def share(self, points: list[tuple[float, float]]) -> float:
        """Share of the table's hypervolume that these points have [points, (mse, seconds)]."""
        return self._volume.share(points)

    def rank_correlation(self, rung: int) -> float:
        """How well the errors at a rung rank the errors at the end (Spearman), over all configurations.

        Args:
            rung: Number of the rung, from 0.
        """
        runs = [run for run in self.recorded.values() if is_complete(run)]
        found = scipy.stats.spearmanr(
            [run.validations[rung].val_mse for run in runs], [run.last.val_mse for run in runs]
        )
        return float(found.statistic)

    def run(
        self, sampler: str, scheduler: str, seed: int, *, needed: float = 0.0, most_seconds: float = math.inf
    ) -> Replayed:
        """One search.

        Args:
            sampler: Name of the sampler.
            scheduler: Name of the scheduler.
            seed: Of the sampler.
            needed: Share of the hypervolume without which a search is not worth going on: it ends when the trials that
                were stopped have put it out of reach.
            most_seconds: Wall clock at which it ends, start-ups included.

        Raises:
            InputError: If the table was not recorded at a rung of the scheduler.
        """
        space = self.table.space
        study = SearchStudy(
            space, StudyOptions(name="replay", sampler=self.make_sampler(sampler, space, seed), seed=seed)
        )
        stopper = self.scheduler(scheduler)
        steps: list[Step] = []
        points: list[tuple[float, float]] = []
        untried = {key: objectives(run.last) for key, run in self.recorded.items() if is_complete(run)}
        thinking = clock = 0.0
        while clock < most_seconds and self._volume.share([*points, *untried.values()]) >= needed:
            began = time.process_time()
            proposal = study.propose()
            thinking += time.process_time() - began
            if proposal is None:
                break
            key = self.table.key(proposal.settings)
            run = self.recorded[key]
            untried.pop(key, None)
            reached = _last_validation(proposal, run, stopper)
            is_whole = reached is run.last
            study.finish(proposal.trial_id, _row(proposal, run, reached))
            if is_whole and is_complete(run):
                points.append(objectives(reached))
            steps.append(Step(reached.seconds, self._volume.share(points), is_whole))
            clock += reached.seconds + self.conditions.startup_seconds
            if steps[-1].share >= self.enough:
                break
        return Replayed(steps, thinking / max(1, len(steps)))

    def scheduler(self, name: str) -> Scheduler:
        """A new scheduler, planned for runs like the table's.

        Raises:
            InputError: If the table was not recorded at a rung of it.
        """
        space, recorded = self.table.space, self.conditions
        fidelity = Fidelity.of_samples(recorded.train_samples)
        baseline = fidelity.apply(RunConfig.from_dict(space.settings(space.baseline)))
        scheduler = SCHEDULERS[name]()
        rungs = scheduler.plan(fidelity, baseline, recorded.train_samples)
        if lacking := sorted(set(rungs) - set(recorded.rungs)):
            raise InputError(
                f"The table must be recorded at every rung of {name}, but it has none at "
                f"{', '.join(map(str, lacking))} windows. Record it again with benchmarks.record_factorial."
            )
        return scheduler


def objectives(validation: Validation) -> tuple[float, float]:
    """Error and seconds per epoch of a validation that has both."""
    assert validation.val_mse is not None
    assert validation.seconds_per_epoch is not None
    return validation.val_mse, validation.seconds_per_epoch


def _last_validation(proposal: Proposal, run: Recorded, scheduler: Scheduler) -> Validation:
    """Where a trial ends: at the end of its run, or where the scheduler stops it, which spares the first trials."""
    if proposal.source != SAMPLER:
        return run.last
    for validation in run.validations[:-1]:
        is_measured = validation.val_mse is not None and validation.seconds_per_epoch is not None
        if is_measured and not scheduler.passes(proposal.trial_id, validation.samples, objectives(validation)):
            return validation
    return run.last


def _row(proposal: Proposal, run: Recorded, reached: Validation) -> dict[str, Any]:
    """The trial's row, as far as a study reads it."""
    return {
        "trial_id": proposal.trial_id,
        "source": proposal.source,
        "state": run.state if reached is run.last else State.STOPPED_EARLY,
        VAL_MSE: reached.val_mse,
        SECONDS_PER_EPOCH: reached.seconds_per_epoch,
        **{knob_column(name): value for name, value in proposal.settings.items()},
    }
