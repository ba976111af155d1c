"""Multi-objective asynchronous successive halving (MO-ASHA: Schmucker et al. 2021). Knows nothing of Ray.

Trials report their objectives at rungs, counted in training windows seen. A trial that is not among the best share
of those that have reached its rung is stopped. Trials are ranked by non-dominated sorting; within a front, by an
epsilon-net: each next one is the farthest from those ranked before it, so that what is kept spreads over the front.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import moocore
import numpy as np

from search.decide.spend.fidelity import STEP, Fidelity
from timellm.contract.config import RunConfig

REDUCTION = 2
"""One in this many trials passes a rung."""
LEVELS = 2
"""Rungs below the whole trial."""


@dataclass
class Halving:
    """The rungs of a search and what has been reported at them.

    Attributes:
        rungs: Training windows seen, rising.
        reduction: One in this many trials passes a rung.
        whole: Training windows that a whole trial sees: one that has seen them is done, and is not judged.
    """

    rungs: tuple[int, ...]
    reduction: int = REDUCTION
    whole: float = math.inf
    _reports: dict[int, dict[str, tuple[float, ...]]] = field(default_factory=dict)

    def plan(self, fidelity: Fidelity, config: RunConfig, train_windows: int) -> tuple[int, ...]:
        """Take the rungs of `rungs_of`, and remember what a whole trial sees."""
        self.rungs = rungs_of(fidelity, config, train_windows)
        self.whole = fidelity.train_samples or config.train_epochs * train_windows
        return self.rungs

    def rung_of(self, trial_id: str, samples: int) -> int | None:
        """The highest rung that a trial has newly reached; None if it has reached none."""
        reached = [rung for rung in self.rungs if samples >= rung and trial_id not in self._reports.get(rung, {})]
        return max(reached, default=None)

    def passes(self, trial_id: str, samples: int, values: Sequence[float]) -> bool:
        """Whether a trial goes on after a report.

        Args:
            trial_id: Name of the trial.
            samples: Training windows it has seen.
            values: Its objectives there, each to be minimised and above 0.
        """
        rung = self.rung_of(trial_id, samples)
        if rung is None or samples >= self.whole:
            return True
        for lower in self.rungs[: self.rungs.index(rung) + 1]:
            self._reports.setdefault(lower, {}).setdefault(trial_id, tuple(values))
        names = list(self._reports[rung])
        kept = math.ceil(len(names) / self.reduction)
        ranked = rank(np.array([self._reports[rung][name] for name in names]))
        return names.index(trial_id) in set(ranked[:kept])


def rank(values: np.ndarray) -> list[int]:
    """Positions of points from the best to the worst.

    Args:
        values: Objectives [points, objectives], each to be minimised and above 0.

    Returns:
        Positions, front after front, each front in the order of its epsilon-net.
    """
    logs = np.log(values)
    spread = np.ptp(logs, axis=0)
    scaled = (logs - logs.min(axis=0)) / np.where(spread > 0, spread, 1.0)
    fronts = moocore.pareto_rank(values)
    order: list[int] = []
    for front in sorted(set(fronts.tolist())):
        order += _spread_out(scaled, np.flatnonzero(fronts == front))
    return order


def _spread_out(points: np.ndarray, members: np.ndarray) -> list[int]:
    """Members of a front, starting from its middle, each next one the farthest from those before it."""
    first = int(members[np.argmin(points[members].sum(axis=1))])
    order, left = [first], [int(member) for member in members if member != first]
    distance = {member: float(np.linalg.norm(points[member] - points[first])) for member in left}
    while left:
        farthest = max(left, key=lambda member: distance[member])
        left.remove(farthest)
        order.append(farthest)
        for member in left:
            distance[member] = min(distance[member], float(np.linalg.norm(points[member] - points[farthest])))
    return order


def rungs_of(fidelity: Fidelity, config: RunConfig, train_windows: int) -> tuple[int, ...]:
    """The rungs of trials: a quarter and a half of a trial, at whole epochs of a full run.

    Args:
        fidelity: How much of the training a trial does.
        config: The baseline, for its epochs.
        train_windows: Windows of the training split.
    """
    shares = [REDUCTION ** (level - LEVELS) for level in range(LEVELS)]
    if fidelity.train_samples is None:
        found = {math.ceil(config.train_epochs * share) * train_windows for share in shares}
        return tuple(sorted(rung for rung in found if rung < config.train_epochs * train_windows))
    found = {int(fidelity.train_samples * share) // STEP * STEP for share in shares}
    return tuple(sorted(rung for rung in found if 0 < rung < fidelity.train_samples))
