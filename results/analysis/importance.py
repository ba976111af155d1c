"""How much of each objective's variation each knob explains."""

from typing import Any, Literal

import numpy as np
import optuna
import pandas as pd

from results.analysis.fidelity import Compared, compared
from timellm.contract.columns import OBJECTIVES, knob_columns, knob_name

MIN_CONFIGURATIONS = 12
"""Complete configurations below which importances are not computed."""

MAX_CONFIGURATIONS = 600
"""Configurations above which a seeded sample of this size is used: the forests take minutes otherwise."""

TREES, DEPTH = 16, 8
"""Size of the forests of fANOVA; its time grows with the square of a tree's leaves."""

MAX_CHOICES = 12
"""Most distinct values of a number that is treated as a set of choices, as spaces list them."""

Evaluator = Literal["fanova", "ped-anova"]
_EVALUATORS = {"fanova": "fANOVA", "ped-anova": "PED-ANOVA"}


def knob_importance(df: pd.DataFrame | Compared, evaluator: Evaluator = "fanova", seed: int = 0) -> pd.DataFrame:
    """Importance of every knob that was varied, per objective, by Optuna's evaluators.

    Args:
        df: A trials table; its main fidelity is used, repeats averaged.
        evaluator: fanova: share of the variance of the objective's logarithm (Hutter et al. 2014); ped-anova: what
            tells the best trials from the others (Watanabe et al. 2023).
        seed: Seed of the forests and of the sample from a table with many configurations.

    Returns:
        Columns `knob`, `seconds_per_epoch` and `val_mse` (importances that add up to 1), the most important first.
        Without enough data it is empty. `attrs["note"]` says what was used or why nothing came out.
    """
    rows = compared(df).configurations
    knobs = varied_knobs(rows)
    empty = pd.DataFrame({"knob": pd.Series(dtype="str"), **{name: pd.Series(dtype=float) for name in OBJECTIVES}})
    if len(rows) < MIN_CONFIGURATIONS:
        empty.attrs["note"] = (
            f"Not enough data: importances need {MIN_CONFIGURATIONS} complete configurations, got {len(rows)}."
        )
        return empty
    if len(knobs) < 2:
        empty.attrs["note"] = f"Not enough data: importances need 2 knobs that vary, got {len(knobs)}."
        return empty
    note = f"{len(rows)} complete configurations"
    if len(rows) > MAX_CONFIGURATIONS:
        note = f"a sample of {MAX_CONFIGURATIONS} of {len(rows)} complete configurations"
        rows = rows.sample(MAX_CONFIGURATIONS, random_state=seed)
    shares = {objective: _shares(rows, knobs, objective, evaluator, seed) for objective in OBJECTIVES}
    table = pd.DataFrame(shares, index=pd.Index([knob_name(knob) for knob in knobs], name="knob"))
    table = table.loc[table.max(axis=1).sort_values(ascending=False, kind="stable").index].reset_index()
    table.attrs["note"] = f"Computed from {note} with {_EVALUATORS[evaluator]}."
    return table


def varied_knobs(rows: pd.DataFrame) -> list[str]:
    """Columns of the knobs that take more than one value; missing counts as one."""
    return [name for name in knob_columns(rows) if rows[name].nunique(dropna=False) > 1]


def _shares(rows: pd.DataFrame, knobs: list[str], objective: str, evaluator: Evaluator, seed: int) -> dict[str, float]:
    values = np.log(rows[objective].to_numpy(dtype=float))
    if np.ptp(values) == 0:
        return {knob_name(knob): 0.0 for knob in knobs}
    columns = {knob_name(knob): _parameter(rows[knob]) for knob in knobs}
    distributions = {name: distribution for name, (distribution, _) in columns.items()}
    study = _study()
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={name: column[index] for name, (_, column) in columns.items()},
                distributions=distributions,
                value=float(value),
            )
            for index, value in enumerate(values)
        ]
    )
    chosen: optuna.importance.BaseImportanceEvaluator = (
        optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, max_depth=DEPTH, seed=seed)
        if evaluator == "fanova"
        else optuna.importance.PedAnovaImportanceEvaluator()
    )
    return optuna.importance.get_param_importances(study, evaluator=chosen)


def _study() -> optuna.Study:
    """An empty study in memory, made without a line in the log."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study()
    finally:
        optuna.logging.set_verbosity(verbosity)


def _parameter(column: pd.Series) -> tuple[optuna.distributions.BaseDistribution, list[Any]]:
    """A knob as Optuna's distribution and its values: many numbers as a range, the rest and missing ones as choices."""
    is_range = column.nunique() > MAX_CHOICES and column.notna().all()
    if is_range and pd.api.types.is_numeric_dtype(column.dtype):
        numbers = column.to_numpy(dtype=float)
        return optuna.distributions.FloatDistribution(float(numbers.min()), float(numbers.max())), numbers.tolist()
    texts = [None if pd.isna(value) else str(value) for value in column]
    choices = sorted(set(texts), key=lambda text: (text is not None, text))
    return optuna.distributions.CategoricalDistribution(choices), texts
