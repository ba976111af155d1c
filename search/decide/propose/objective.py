"""What a search minimises: two objectives, or one that joins them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from timellm.contract.columns import (
    DEFAULT_TIME_WEIGHT,
    OBJECTIVES,
    PEAK_MEMORY_GIB,
    SECONDS_PER_EPOCH,
    VAL_MSE,
    State,
)

RUNS = "runs"
MEMORY = "peak_memory"
"""Names of the constraints in the study; a trial is feasible where all are zero or less."""

_STORED = OBJECTIVES[::-1]
"""Order of the objectives in the study: the error first, as in every study that was stored so far."""

_FIRST_WORST = {VAL_MSE: 1.0, SECONDS_PER_EPOCH: 60.0}
"""Told for a failure before anything succeeded: the variance of scaled data, and a minute."""
_LEAST_EXCESS = 0.05


@dataclass(frozen=True, slots=True)
class Objective:
    """The objectives of a search and what the study is told about a trial."""

    kind: Literal["pareto", "joint"] = "pareto"
    """pareto: val_mse and seconds_per_epoch; joint: the logarithm of the first plus a share of the second's."""
    time_weight: float = DEFAULT_TIME_WEIGHT
    """Weight of log time in the joint objective."""

    @property
    def names(self) -> list[str]:
        """Names of the objectives in the study."""
        if self.kind == "pareto":
            return list(_STORED)
        return [f"log_{VAL_MSE}_plus_{self.time_weight:g}_log_{SECONDS_PER_EPOCH}"]

    def values(self, row: Mapping[str, Any]) -> list[float] | None:
        """The objectives of a row that has them; None for any other.

        The joint objective differs from the joint score only by a constant, so it needs no baseline.
        """
        if row.get("state") not in (State.COMPLETE, State.STOPPED_EARLY):
            return None
        found = {name: float(row[name]) for name in OBJECTIVES if row.get(name) is not None}
        if len(found) < len(OBJECTIVES) or any(not math.isfinite(value) or value <= 0 for value in found.values()):
            return None
        return self._told(found)

    def worst(self, seen: list[list[float]]) -> list[float]:
        """The values reported for a trial without objectives: the worst seen, of each objective by itself."""
        if seen:
            return [max(values) for values in zip(*seen, strict=True)]
        return self._told(_FIRST_WORST)

    def _told(self, found: Mapping[str, float]) -> list[float]:
        """What the study is told of two measured values, in the order of `names`."""
        if self.kind == "pareto":
            return [found[name] for name in _STORED]
        return [math.log(found[VAL_MSE]) + self.time_weight * math.log(found[SECONDS_PER_EPOCH])]


def constraints(row: Mapping[str, Any], limit_gib: float | None) -> dict[str, float]:
    """The constraints of a finished row, the same names for every row of a search.

    Args:
        row: A row of the trials table.
        limit_gib: Memory limit of a trial; None leaves the memory constraint out.

    Returns:
        `runs`: -1 for a trial that has its objectives, 1 for any other. `peak_memory`: peak over limit, less one;
        above zero after an out-of-memory end, zero where the peak is unknown.
    """
    ended_well = row.get("state") in (State.COMPLETE, State.STOPPED_EARLY)
    found = {RUNS: -1.0 if ended_well else 1.0}
    if limit_gib:
        peak = row.get(PEAK_MEMORY_GIB)
        known = peak is not None and math.isfinite(peak) and peak > 0
        excess = float(peak) / limit_gib - 1 if known and peak is not None else 0.0
        found[MEMORY] = max(excess, _LEAST_EXCESS) if row.get("state") == State.OUT_OF_MEMORY else excess
    return found
