"""What ratios refer to, in words: the baseline, or the first complete trial and why."""

import pandas as pd

from results.analysis.fidelity import fidelity_words, rows_of_fidelity
from results.analysis.pareto import reference_rows
from timellm.contract.columns import BASELINE, RUN_COLUMN, State


def reference_name(reference: pd.Series) -> str:
    """The row that ratios refer to, in words: `the baseline` or `trial t0001`."""
    return "the baseline" if reference["source"] == BASELINE else f"trial {reference['trial_id']}"


def baseline_lack(df: pd.DataFrame, reference: pd.Series) -> str | None:
    """What keeps ratios from referring to the baseline, as a predicate of it.

    Args:
        df: The trials table of one run, rows of every fidelity.
        reference: A row of `results.analysis.pareto.reference_rows`.

    Returns:
        Such as `ended as out_of_memory` or `has another fidelity`; None where the reference is the baseline.
    """
    if reference["source"] == BASELINE:
        return None
    baselines = df[(df["source"] == BASELINE).to_numpy()]
    if baselines.empty:
        return "was not run"
    same = rows_of_fidelity(baselines, reference)
    state = (baselines if same.empty else same)["state"].iloc[0]
    if state != State.COMPLETE:
        return f"ended as {state}"
    return "has another fidelity" if same.empty else "has no usable figures"


def reference_notes(df: pd.DataFrame) -> list[str]:
    """One sentence for every run and fidelity whose speed-ups do not refer to the baseline.

    Args:
        df: The trials table of one or several runs, as `results.load_trials` gives it.
    """
    notes = []
    several = df[RUN_COLUMN.name].nunique() > 1
    for run, rows in df.groupby(RUN_COLUMN.name, observed=True):
        references = reference_rows(rows)
        for position in range(len(references)):
            reference = references.iloc[position]
            lack = baseline_lack(rows, reference)
            if lack is None:
                continue
            owner = f" of {run}" if several else ""
            part = f" ({fidelity_words(references.iloc[[position]])})" if len(references) > 1 else ""
            notes.append(
                f"The baseline{owner} {lack}, so speedup_vs_baseline{part} refers to the first complete trial, "
                f"{reference['trial_id']}."
            )
    return notes
