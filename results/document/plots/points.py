"""Configurations as points, and controls as levels: what several plots show."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from results.analysis.evidence import Evidence
from timellm.contract.columns import CLEAN, SECONDS_PER_EPOCH, VAL_MSE, knob_name
from timellm.contract.words import seconds_words


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A configuration by its two objectives."""

    trial_id: str
    source: str
    seconds_per_epoch: float
    val_mse: float
    says: tuple[str, ...]
    """What is known of it, a line each: its objectives, then its settings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """The validation MSE of a control, which needs no training."""

    name: str
    val_mse: float


def points_of(rows: pd.DataFrame, knobs: Sequence[str]) -> tuple[Point, ...]:
    """Rows of the trials table as points.

    Args:
        rows: They have both objectives.
        knobs: Columns of the knobs that are said.
    """
    return tuple(
        Point(
            trial_id=str(row["trial_id"]),
            source=str(row["source"]),
            seconds_per_epoch=float(row[SECONDS_PER_EPOCH]),
            val_mse=float(row[VAL_MSE]),
            says=_says(row, knobs),
        )
        for _, row in rows.iterrows()
    )


def _says(row: pd.Series, knobs: Sequence[str]) -> tuple[str, ...]:
    lines = [f"{seconds_words(row[SECONDS_PER_EPOCH])} per epoch, validation MSE {row[VAL_MSE]:.4f}"]
    if row.get("repeats", 1) > 1:
        lines.append(f"mean of {row['repeats']} seeds")
    if pd.notna(row["timing_quality"]) and row["timing_quality"] != CLEAN:
        lines.append(f"timing {row['timing_quality']}")
    return (*lines, *(f"{knob_name(name)} {row[name]}" for name in knobs if pd.notna(row[name])))


def levels_of(evidence: Evidence) -> tuple[Level, ...]:
    """The controls of a run."""
    return tuple(Level(name=name, val_mse=error) for name, error in evidence.controls.items())
