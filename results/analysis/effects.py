"""What one knob changes if all else is equal: paired where the table holds pairs, modelled where it does not."""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.linear_model import BayesianRidge

from results.analysis.fidelity import Compared, compared
from results.analysis.importance import varied_knobs
from timellm.contract.columns import BASELINE, OBJECTIVES, knob_name

MIN_PAIRS = 3
"""Pairs below which an effect is modelled instead."""

MIN_ROWS_PER_VALUE = 3
"""Least number of rows with a value, and with the value it is compared with, for an effect to be given."""

SPARE_ROWS = 5
"""Rows a model needs beyond its coefficients."""

MAX_VALUES = 12
"""Values above which a knob counts as continuous and is split at its median."""

NOT_ENOUGH = "not enough data"


def main_effects(df: pd.DataFrame | Compared) -> pd.DataFrame:
    """The effect of every value of every varied knob on both objectives.

    Args:
        df: A trials table; its main fidelity is used, repeats averaged.

    Returns:
        One row per knob, value and objective: `knob`, `value`, `reference` (the baseline's value, or else the most
        frequent), `objective`, `ratio` (objective with the value over objective with the reference, all else equal),
        `ratio_low` and `ratio_high` (95 % interval), `method` and `pairs`. Method `paired`: mean log ratio of rows
        that differ in this knob alone, Student's interval. `modelled`: a Bayesian linear model of the log objective
        in all varied knobs, without interactions. `not enough data`: no ratio. `attrs["note"]` says what was used.
    """
    rows = compared(df).configurations
    knobs = varied_knobs(rows)
    levels = {knob: _levels(rows, knob) for knob in knobs}
    design = pd.DataFrame({knob: column for knob, (column, _) in levels.items()}, index=rows.index)
    references = {knob: reference for knob, (_, reference) in levels.items()}
    effects = []
    for objective in OBJECTIVES:
        logs = pd.Series(np.log(rows[objective].to_numpy(dtype=float)), index=rows.index)
        model = _fit(design, references, logs)
        for knob in knobs:
            for value in sorted(set(design[knob]) - {references[knob]}, key=_sort_key):
                effect = _effect(design, logs, knob, value, references[knob], model)
                effects.append({"knob": knob_name(knob), "objective": objective, **effect})
    columns = ["knob", "value", "reference", "objective", "ratio", "ratio_low", "ratio_high", "method", "pairs"]
    table = pd.DataFrame(effects, columns=columns)
    table.attrs["note"] = (
        f"{len(rows)} complete configurations, {len(knobs)} knobs varied."
        if len(table) and (table["method"] != NOT_ENOUGH).any()
        else f"Not enough data: {len(rows)} complete configurations, {len(knobs)} knobs varied."
    )
    return table


def _effect(
    design: pd.DataFrame,
    logs: pd.Series,
    knob: str,
    value: Any,
    reference: Any,
    model: dict[tuple[str, Any], tuple[float, float]],
) -> dict[str, Any]:
    differences = _pairs(design, logs, knob, value, reference)
    effect: dict[str, Any] = {"value": value, "reference": reference, "pairs": len(differences)}
    seen = min((design[knob] == value).sum(), (design[knob] == reference).sum())
    if len(differences) >= MIN_PAIRS:
        centre = float(differences.mean())
        half = float(stats.sem(differences) * stats.t.ppf(0.975, len(differences) - 1))
        method = "paired"
    elif seen >= MIN_ROWS_PER_VALUE and (knob, value) in model:
        centre, deviation = model[knob, value]
        half = 1.96 * deviation
        method = "modelled"
    else:
        return {**effect, "ratio": np.nan, "ratio_low": np.nan, "ratio_high": np.nan, "method": NOT_ENOUGH}
    low, ratio, high = np.exp([centre - half, centre, centre + half])
    return {**effect, "ratio": ratio, "ratio_low": low, "ratio_high": high, "method": method}


def _pairs(design: pd.DataFrame, logs: pd.Series, knob: str, value: Any, reference: Any) -> np.ndarray:
    """Log ratios [pairs] between rows that differ in one knob alone."""
    others = [name for name in design if name != knob]
    table = design[others].astype(str).assign(_level=design[knob], _log=logs)
    sides = [
        table[(table["_level"] == level).to_numpy()].drop(columns="_level").rename(columns={"_log": label})
        for level, label in ((value, "new"), (reference, "old"))
    ]
    pairs = sides[0].merge(sides[1], on=others) if others else sides[0].merge(sides[1], how="cross")
    return (pairs["new"] - pairs["old"]).to_numpy(dtype=float)


def _fit(
    design: pd.DataFrame, references: dict[str, Any], logs: pd.Series
) -> dict[tuple[str, Any], tuple[float, float]]:
    """Effect and its standard deviation of every knob's value; empty if the rows are too few."""
    terms = [
        (knob, value)
        for knob in map(str, design)
        for value in sorted(set(design[knob]) - {references[knob]}, key=_sort_key)
    ]
    if not terms or len(design) < len(terms) + SPARE_ROWS:
        return {}
    matrix = np.column_stack([(design[knob] == value).to_numpy(dtype=float) for knob, value in terms])
    model = BayesianRidge().fit(matrix, logs.to_numpy(dtype=float))
    deviations = np.sqrt(np.diag(model.sigma_))
    return dict(zip(terms, zip(model.coef_.tolist(), deviations.tolist(), strict=True), strict=True))


def _levels(rows: pd.DataFrame, knob: str) -> tuple[pd.Series, Any]:
    """A knob's values as a few levels, and the one to compare with."""
    column = rows[knob]
    if pd.api.types.is_numeric_dtype(column.dtype) and column.nunique() > MAX_VALUES:
        middle = column.median()
        low, high = f"at most {middle:.3g}", f"above {middle:.3g}"
        column = (column > middle).map({True: high, False: low})
    values = pd.Series([_plain(value) for value in column], index=rows.index, dtype=object)
    baseline = values[(rows["source"] == BASELINE).to_numpy()]
    return values, baseline.iloc[0] if len(baseline) else values.mode().iloc[0]


def _plain(value: Any) -> Any:
    """A value as Python's own type; missing as text."""
    if pd.isna(value):
        return "(not set)"
    return value.item() if isinstance(value, np.generic) else value


def _sort_key(value: Any) -> tuple[str, float, str]:
    number = float(value) if isinstance(value, int | float) else 0.0
    return ("text" if isinstance(value, str) else "number", number, str(value))
