"""Pareto front, hypervolume and joint score of the trials table.

Only complete rows of one fidelity are compared with each other: a short trial's numbers say little about a
whole run's. Repeats of one configuration (other seeds) count once, with their mean.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import moocore
import numpy as np
import pandas as pd

from results.analysis.table import typed_table
from timellm.contract.columns import (
    BASELINE,
    CONFIRM,
    DEFAULT_TIME_WEIGHT,
    FIDELITY,
    OBJECTIVES,
    RUN_COLUMN,
    SECONDS_PER_EPOCH,
    VAL_MSE,
    State,
    knob_column,
    knob_columns,
)
from timellm.contract.errors import InputError

AVERAGED = (
    *OBJECTIVES,
    "val_mae",
    "test_mse",
    "test_mae",
    "seconds_per_epoch_with_validation",
    "seconds_per_batch",
    "samples_per_second",
    "peak_memory_gib",
)
"""Columns that are averaged over repeats."""


def comparable(df: pd.DataFrame) -> pd.DataFrame:
    """The complete rows whose two objectives are finite and positive."""
    values = df[list(OBJECTIVES)].astype("float64").to_numpy()
    usable = (np.isfinite(values) & (values > 0)).all(axis=1)
    return df[(df["state"] == State.COMPLETE).to_numpy() & usable]


def average_repeats(df: pd.DataFrame) -> pd.DataFrame:
    """One row per configuration and fidelity (and run, where there is one).

    Args:
        df: A trials table.

    Returns:
        The comparable rows, repeats merged into the first that is not a confirmation: means of the columns
        `AVERAGED`, the outer ends of the time intervals, and three columns more: `repeats` (rows merged),
        `confirmations` (those of source confirm), `val_mse_std` and `seconds_per_epoch_std` (standard deviation
        over the repeats; missing where there is one).
    """
    rows = comparable(df)
    rows = rows.assign(
        repeats=1,
        confirmations=(rows["source"] == CONFIRM).astype(int).to_numpy(),
        val_mse_std=pd.Series(pd.NA, index=rows.index, dtype="Float64"),
        seconds_per_epoch_std=pd.Series(pd.NA, index=rows.index, dtype="Float64"),
    )
    knobs = [name for name in knob_columns(df) if name != knob_column("seed")]
    if not knobs or rows.empty:
        return rows
    keys = rows.groupby([*_fidelity_columns(df), *knobs], dropna=False, observed=True, sort=False).ngroup()
    if keys.is_unique:
        return rows
    order = rows.assign(_key=keys, _late=(rows["source"] == CONFIRM).to_numpy())
    grouped = order.groupby("_key", sort=False)
    first = order.sort_values("_late", kind="stable").drop_duplicates("_key").set_index("_key", drop=False)
    for name in AVERAGED:
        first[name] = grouped[name].mean().astype("Float64")
    first["seconds_per_epoch_low"] = grouped["seconds_per_epoch_low"].min()
    first["seconds_per_epoch_high"] = grouped["seconds_per_epoch_high"].max()
    first["val_mse_std"] = grouped[VAL_MSE].std()
    first["seconds_per_epoch_std"] = grouped[SECONDS_PER_EPOCH].std()
    first["repeats"] = grouped.size()
    first["confirmations"] = grouped["confirmations"].sum()
    kept = order.sort_values("_late", kind="stable").drop_duplicates("_key").index
    return first.set_index(kept).drop(columns=["_key", "_late"]).sort_index()


def pareto_front(df: pd.DataFrame) -> pd.DataFrame:
    """The configurations that no other of their fidelity (and run) beats in both objectives.

    Args:
        df: A trials table.

    Returns:
        Rows of `average_repeats`, from fast to slow. Where the table holds several fidelities or runs each has a
        front of its own, told apart by `is_projected`, `train_samples`, `val_samples` and `run`. Of rows equal in
        both objectives the first is kept.
    """
    return front_of(average_repeats(df))


def front_of(rows: pd.DataFrame) -> pd.DataFrame:
    """`pareto_front` of rows of `average_repeats`."""
    if rows.empty:
        return rows
    on_front = np.zeros(len(rows), dtype=bool)
    groups = rows.groupby(_fidelity_columns(rows), dropna=False, observed=True).indices
    for positions in groups.values():
        on_front[positions] = moocore.is_nondominated(_objectives(rows.iloc[positions]))
    return rows[on_front].sort_values([*_fidelity_columns(rows), SECONDS_PER_EPOCH])


def mark_pareto(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows with `is_pareto` filled in.

    Args:
        rows: Rows as for `results.write_trials`.

    Returns:
        Copies of the rows. A front's configuration is marked once: its repeats are not.
    """
    front = set(pareto_front(typed_table(rows))["trial_id"])
    return [{**row, "is_pareto": row["trial_id"] in front} for row in rows]


def add_scores(rows: Sequence[Mapping[str, Any]], weight: float = DEFAULT_TIME_WEIGHT) -> list[dict[str, Any]]:
    """Rows with `is_pareto`, `joint_score` and `speedup_vs_baseline` filled in.

    Args:
        rows: Rows as for `results.write_trials`.
        weight: Weight of log time in the joint score.

    Returns:
        Copies of the rows; both scores are None where a row or its fidelity has nothing to compare.
    """
    frame = typed_table(rows)
    averaged = average_repeats(frame)
    front, references = set(front_of(averaged)["trial_id"]), references_of(averaged)
    scores, speedups = score_against(frame, references, weight), speedup_against(frame, references)
    return [
        {
            **row,
            "is_pareto": row["trial_id"] in front,
            "joint_score": None if pd.isna(score) else score,
            "speedup_vs_baseline": None if pd.isna(ratio) else ratio,
        }
        for row, score, ratio in zip(rows, scores, speedups, strict=True)
    ]


def reference_rows(df: pd.DataFrame) -> pd.DataFrame:
    """What ratios refer to: of each fidelity (and run) the baseline, or else the first complete trial.

    Args:
        df: A trials table.

    Returns:
        Rows of `average_repeats`, at most one per fidelity and run; their `source` tells which of the two it is.
    """
    return references_of(average_repeats(df))


def references_of(rows: pd.DataFrame) -> pd.DataFrame:
    """`reference_rows` of rows of `average_repeats`."""
    if rows.empty:
        return rows
    preferred = rows.assign(_late=(rows["source"] != BASELINE).to_numpy()).sort_values(
        ["_late", "started_at"], kind="stable"
    )
    return preferred.drop_duplicates(_fidelity_columns(rows)).drop(columns="_late")


def joint_score(df: pd.DataFrame, weight: float = DEFAULT_TIME_WEIGHT) -> pd.Series:
    """log(val_mse ratio) + weight * log(seconds_per_epoch ratio) to the baseline; lower is better.

    Args:
        df: A trials table.
        weight: Weight of log time.

    Returns:
        One value per row; missing where the row is not complete or its fidelity has no reference.
    """
    return score_against(df, reference_rows(df), weight)


def score_against(df: pd.DataFrame, references: pd.DataFrame, weight: float) -> pd.Series:
    """`joint_score` against references that are known.

    Args:
        df: A trials table.
        references: Rows of `reference_rows`.
        weight: Weight of log time.
    """
    mse, seconds = (_log_ratio(df, name, references) for name in (VAL_MSE, SECONDS_PER_EPOCH))
    return (mse + weight * seconds).rename("joint_score")


def speedup(df: pd.DataFrame) -> pd.Series:
    """The baseline's seconds_per_epoch over each row's; missing as in `joint_score`."""
    return speedup_against(df, reference_rows(df))


def speedup_against(df: pd.DataFrame, references: pd.DataFrame) -> pd.Series:
    """`speedup` against references that are known.

    Args:
        df: A trials table.
        references: Rows of `reference_rows`.
    """
    return np.exp(-_log_ratio(df, SECONDS_PER_EPOCH, references)).rename("speedup_vs_baseline")


def hypervolume(df: pd.DataFrame, reference: Mapping[str, float] | None = None) -> float:
    """Hypervolume of the front on (log seconds_per_epoch, log val_mse); higher is better.

    Args:
        df: A trials table with complete rows of one fidelity.
        reference: A point worse than any of interest, with keys seconds_per_epoch and val_mse (default: the one in
            the manifest of the run).

    Returns:
        The area between front and reference; 0 where there is no complete row.

    Raises:
        InputError: If there is no reference, or the complete rows are of several fidelities.
    """
    corner = _reference(df, reference)
    rows = average_repeats(df)
    _require_one_fidelity(rows)
    return float(moocore.hypervolume(np.log(_objectives(rows)), ref=corner)) if len(rows) else 0.0


def hypervolume_over_time(df: pd.DataFrame, reference: Mapping[str, float] | None = None) -> pd.DataFrame:
    """How the hypervolume grew, over trials and over wall clock.

    Args:
        df: A trials table of one run and one fidelity.
        reference: As for `hypervolume`.

    Returns:
        One row per complete trial in the order they ended: `trial_id`, `trials` (trials ended so far, failed ones
        too), `elapsed_seconds` (since the first one started) and `hypervolume`. Confirmations and rows without a
        `started_at` are left out, and a repeat counts with its own values, so the curve never falls.

    Raises:
        InputError: As `hypervolume`.
    """
    corner = _reference(df, reference)
    ended = df["started_at"] + pd.to_timedelta(df["total_seconds"].astype("float64").fillna(0.0), unit="s")
    timed = df.assign(_elapsed=(ended - df["started_at"].min()).dt.total_seconds())
    known = timed["source"].ne(CONFIRM).to_numpy() & timed["_elapsed"].notna().to_numpy()
    timed = timed[known].sort_values("_elapsed", kind="stable")
    timed = timed.assign(_trials=np.arange(1, len(timed) + 1))
    rows = comparable(timed)
    _require_one_fidelity(rows)
    volume, volumes = 0.0, []
    front = np.empty((0, 2))
    for point in np.log(_objectives(rows)):
        if not (front <= point).all(axis=1).any():
            front = np.vstack([front[~(point <= front).all(axis=1)], point])
            volume = max(volume, float(moocore.hypervolume(front, ref=corner)))  # rounding could take a bit away
        volumes.append(volume)
    return pd.DataFrame(
        {
            "trial_id": rows["trial_id"].to_numpy(),
            "trials": rows["_trials"].to_numpy(),
            "elapsed_seconds": rows["_elapsed"].to_numpy(dtype=float),
            "hypervolume": volumes,
        }
    )


def _fidelity_columns(df: pd.DataFrame) -> list[str]:
    return [*([RUN_COLUMN.name] if RUN_COLUMN.name in df else []), *FIDELITY]


def _objectives(df: pd.DataFrame) -> np.ndarray:
    """The two objectives [rows, 2]."""
    return df[list(OBJECTIVES)].to_numpy(dtype=float)


def _log_ratio(df: pd.DataFrame, name: str, references: pd.DataFrame) -> pd.Series:
    keys = _fidelity_columns(df)
    base = df[keys].merge(references[[*keys, name]], on=keys, how="left")[name].set_axis(df.index)
    usable = pd.Series(df.index.isin(comparable(df).index), index=df.index)
    ratio = (df[name] / base).where(usable)
    return np.log(ratio.astype("Float64"))  # type: ignore[return-value]


def _require_one_fidelity(rows: pd.DataFrame) -> None:
    found = rows.drop_duplicates(list(FIDELITY))
    if len(found) > 1:
        raise InputError(
            f"A hypervolume needs rows of one fidelity, got {len(found)}: select by {', '.join(FIDELITY)} first."
        )


def _reference(df: pd.DataFrame, reference: Mapping[str, float] | None) -> np.ndarray:
    """The reference point in log units [2].

    Raises:
        InputError: If there is none, or it lacks an objective or is not positive.
    """
    if reference is None:
        known = df.attrs.get("reference_points", {})
        if len(known) != 1:
            raise InputError(
                f"A hypervolume needs one reference point, got {len(known)} from the manifests. "
                "Pass reference={'seconds_per_epoch': …, 'val_mse': …}."
            )
        reference = next(iter(known.values()))
    point = np.array([float(reference.get(name, np.nan)) for name in OBJECTIVES])
    if not (np.isfinite(point) & (point > 0)).all():
        raise InputError(f"A reference point needs positive {' and '.join(OBJECTIVES)}, got {dict(reference)}.")
    return np.log(point)
