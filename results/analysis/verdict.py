"""What the errors of one run show: computed once from its table, its manifest and its errors."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from results.analysis.errors import ErrorTraining, repeats_of, set_key
from results.analysis.judgement import (
    Difference,
    Repeats,
    Spread,
    Telling,
    difference,
    is_telling,
    mean_error,
    pooled_spread,
)
from results.analysis.pareto import comparable
from timellm.contract.columns import BASELINE, VAL_MSE, knob_columns, knob_name
from timellm.contract.manifest import Manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The noise of a run's errors and what follows from it."""

    repeats: Repeats
    """Errors by set of numbers and seed, of the main fidelity."""
    spread: Spread | None
    """Of log error over seeds; None where nothing was repeated."""
    telling: Telling
    """Whether the reference's error, and with it any other, tells anything."""
    reference: str | None
    """Key of the reference's set of numbers."""
    reference_steps: float | None
    """Optimizer steps of the reference."""
    naive: Mapping[str, float]
    """Errors of the forecasts that need no training."""
    chosen_by: int | None
    """Seed that configurations are chosen by."""
    errors: Mapping[str, ErrorTraining]
    """The error trainings at that seed, by set of numbers."""
    manifest: Manifest

    def difference(self, row: pd.Series) -> Difference | None:
        """How much higher a row's error is than the reference's; None where they share no seed."""
        if self.reference is None:
            return None
        return difference(self.repeats, self.key(row), self.reference, chosen_by=self.chosen_by)

    def key(self, row: pd.Series) -> str:
        """The key of a row's set of numbers."""
        return set_key(settings_of(row, self.manifest))

    def training(self, row: pd.Series) -> ErrorTraining | None:
        """The training that gave a row's error, where errors were measured apart."""
        return self.errors.get(self.key(row)) if self.errors else None

    def steps(self, row: pd.Series) -> float | None:
        """Optimizer steps that a row's error was trained for; None if not known."""
        training = self.training(row)
        if training is not None and training.steps is not None:
            return training.steps
        return steps_of(row, self.manifest)

    def may_be_accurate(self, row: pd.Series) -> bool:
        """Whether a lower error of this row is more than an effect of more optimizer steps in as many windows.

        True of whole runs. True of a projected row, or one that does not say what it is, if its steps are at most the
        reference's, or if its error after as many steps as the reference made is telling.
        """
        is_whole = pd.notna(row["is_projected"]) and not row["is_projected"]
        if is_whole or self.reference_steps is None:
            return True
        steps = self.steps(row)
        if steps is None or steps <= self.reference_steps:
            return True
        error = self._error_after(row, self.reference_steps)
        return error is not None and is_telling(error, self.reference_steps, self.naive, self.spread).holds

    def _error_after(self, row: pd.Series, steps: float) -> float | None:
        """A row's error after some steps, from its curve; scaled to all windows where the curve reaches the end."""
        training = self.training(row)
        points = sorted(training.curve, key=lambda point: point["step"]) if training is not None else []
        reached = [point for point in points if point["step"] <= steps]
        if not reached or training is None or training.val_mse is None:
            return None
        at_end = points[-1]["step"] == training.steps
        return reached[-1][VAL_MSE] * (training.val_mse / points[-1][VAL_MSE] if at_end else 1.0)


def judge(
    main: pd.DataFrame, reference: pd.Series, manifest: Manifest, errors: Sequence[ErrorTraining] = ()
) -> Verdict:
    """Weigh the errors of a run.

    Args:
        main: Its rows of the main fidelity.
        reference: The row with which errors are compared; empty if there is none yet.
        manifest: Its manifest.
        errors: Its error trainings, where errors were measured apart; otherwise the rows themselves are the trainings.
    """
    chosen_by = manifest.seed
    same = [error for error in errors if reference.empty or _has_fidelity(error, reference)]
    repeats = repeats_of(same) if same else _repeats_of_rows(main, manifest)
    spread = pooled_spread(repeats)
    firsts: dict[str, ErrorTraining] = {}
    for error in same:
        if error.is_usable and (error.numbers not in firsts or error.seed == chosen_by):
            firsts[error.numbers] = error
    naive = manifest.naive_errors
    if reference.empty or pd.isna(reference[VAL_MSE]):
        return Verdict(
            repeats=repeats,
            spread=spread,
            telling=Telling(False, "Errors are not telling: none was measured for the baseline."),
            reference=None,
            reference_steps=None,
            naive=naive,
            chosen_by=chosen_by,
            errors=firsts,
            manifest=manifest,
        )
    key = set_key(settings_of(reference, manifest))
    known = firsts.get(key)
    steps = known.steps if known is not None and known.steps is not None else steps_of(reference, manifest)
    measured = mean_error(repeats[key].values()) if repeats.get(key) else float(reference[VAL_MSE])
    who = "the baseline" if reference["source"] == BASELINE else f"trial {reference['trial_id']}"
    return Verdict(
        repeats=repeats,
        spread=spread,
        telling=is_telling(measured, steps, naive, spread, who),
        reference=key,
        reference_steps=steps,
        naive=naive,
        chosen_by=chosen_by,
        errors=firsts,
        manifest=manifest,
    )


def settings_of(row: pd.Series, manifest: Manifest) -> dict[str, Any]:
    """Every setting that a row was run with, in the types of a run's settings.

    Args:
        row: A row of the trials table.
        manifest: Its run's manifest: settings that the row's knobs do not hold.
    """
    defaults = manifest.run_defaults
    knobs = {
        knob_name(name): plain(row[name], defaults.get(knob_name(name)))
        for name in knob_columns(row.index)
        if pd.notna(row[name])
    }
    return {**defaults, **manifest.run_config, **knobs}


def plain(value: Any, default: Any) -> Any:
    """A table's value as the type that its setting has."""
    if isinstance(value, np.generic):
        value = value.item()
    return float(value) if isinstance(default, float) else value


def steps_of(row: pd.Series, manifest: Manifest) -> float | None:
    """Optimizer steps of a row, from its windows and its global batch; None if not known."""
    settings = settings_of(row, manifest)
    batch = (settings.get("batch_size") or 0) * (settings.get("accumulation_steps") or 1) * manifest.devices_per_trial
    if not batch or pd.isna(row["train_samples"]):
        return None
    epochs = 1.0 if pd.isna(row["epochs"]) else max(1.0, float(row["epochs"]))
    return math.ceil(int(row["train_samples"]) / batch) * epochs


def _has_fidelity(error: ErrorTraining, row: pd.Series) -> bool:
    return all(
        known is None or pd.isna(row[name]) or int(row[name]) == known
        for name, known in (("train_samples", error.train_samples), ("val_samples", error.val_samples))
    )


def _repeats_of_rows(main: pd.DataFrame, manifest: Manifest) -> dict[str, dict[int, float]]:
    """Errors by set and seed of the configurations that were run with several seeds."""
    rows = comparable(main)
    knobs = [name for name in knob_columns(rows) if knob_name(name) != "seed"]
    rows = rows[rows["seed"].notna().to_numpy(dtype=bool)]
    if rows.empty or not knobs or rows["seed"].nunique() < 2:
        return {}
    repeated = rows[rows[knobs].astype("string").fillna("").duplicated(keep=False).to_numpy()]
    repeats: dict[str, dict[int, float]] = {}
    for _, row in repeated.iterrows():
        repeats.setdefault(set_key(settings_of(row, manifest)), {})[int(row["seed"])] = float(row[VAL_MSE])
    return repeats
