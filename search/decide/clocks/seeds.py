"""Further seeds of an error: the baseline's, and those of the best candidates of each pick."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from results.analysis.judgement import MIN_STEPS
from timellm.contract.columns import BASELINE, CONFIRM, SECONDS_PER_EPOCH, VAL_MSE, State
from timellm.contract.config import RunConfig

Row = Mapping[str, Any]

CANDIDATES = 2
"""Best rows of each pick whose numbers get the baseline's seeds."""


def can_tell(baseline: RunConfig) -> bool:
    """Whether the baseline's error is trained for enough steps that an error could tell anything."""
    return baseline.train_samples is None or baseline.train_samples // baseline.global_batch >= MIN_STEPS


def candidates(rows: Sequence[Row]) -> list[Row]:
    """The best rows of each pick: by joint score, by error, by time; each once, the baseline left out.

    Args:
        rows: The table.
    """
    complete = [row for row in rows if row["state"] == State.COMPLETE and row["source"] not in (CONFIRM, BASELINE)]
    scored = [row for row in complete if row.get("joint_score") is not None]
    orders = [
        sorted(scored, key=lambda row: row["joint_score"]),
        sorted(complete, key=lambda row: row[VAL_MSE]),
        sorted(complete, key=lambda row: row[SECONDS_PER_EPOCH]),
    ]
    found: dict[str, Row] = {}
    for place in range(CANDIDATES):
        for order in orders:
            for row in order[place : place + 1]:
                found.setdefault(row["trial_id"], row)
    return list(found.values())


def missing(
    rows: Sequence[Row],
    config_of: Callable[[Row], RunConfig],
    is_trained: Callable[[RunConfig], bool],
    seeds: Sequence[int],
) -> list[tuple[str, RunConfig]]:
    """The error trainings that remain, the most useful first: trial and settings.

    Args:
        rows: The table.
        config_of: The settings of a row at the search's fidelity.
        is_trained: Whether a run's error is known or being trained.
        seeds: Those of the baseline.
    """
    wanted: list[tuple[str, RunConfig]] = []
    baseline = next((row for row in rows if row["source"] == BASELINE and row.get(VAL_MSE)), None)
    groups: list[Sequence[Row]] = [[baseline]] if baseline else []
    if baseline and can_tell(config_of(baseline)):
        groups.append(candidates(rows))
    for group in groups:
        for seed in seeds:
            for row in group:
                config = config_of(row).replace(seed=seed)
                if not is_trained(config):
                    wanted.append((row["trial_id"], config))
    return wanted
