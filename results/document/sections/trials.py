"""The sections that list trials: all of them, and those that did not complete."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from results.analysis.evidence import Evidence
from results.analysis.wording import factor, signed
from results.document.parts import Number, Section, state_words, text_of
from timellm.contract.columns import SECONDS_PER_EPOCH, VAL_MSE, State, knob_name
from timellm.contract.words import seconds_words

MAX_ROWS = 500
"""Rows of the trials table; a browser slows down beyond."""

MAX_FAILURES = 50
"""Failed trials that are listed one by one."""

HEADS = ("Trial", "Source", "State", "Per epoch", "Validation MSE", "Speed-up", "Memory, GiB", "Joint score")
"""Columns before the knobs'."""

NUMBERS = range(3, len(HEADS))
"""Those that hold numbers."""

REMEDIES: Mapping[State, str] = {
    State.OUT_OF_MEMORY: "Use bf16 or fp16, a smaller batch_size with more accumulation_steps, fewer llm_layers, "
    "prompt_prefix reuse, gradient_checkpointing, or offload_optimizer cpu.",
    State.DIVERGED: "Use bf16 instead of fp16, a lower learning_rate, or clip gradients with --max_grad_norm.",
    State.FAILED: "Read run.log in the trial's folder; it holds the whole message.",
    State.INTERRUPTED: "Continue with --resume; an interrupted trial is run again.",
}
"""What to do about a state, beyond what the trial's own error says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRow:
    """A trial as a row."""

    trial_id: str
    is_on_front: bool
    source: str
    state: str
    state_words: str
    numbers: Sequence[Number]
    knobs: Sequence[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialsSection(Section):
    """The table of every trial."""

    template: ClassVar[str] = "trials.html.j2"
    heads: Sequence[str] = ()
    numeric: Container[int] = ()
    """Indices of the columns that are aligned right."""
    rows: Sequence[TrialRow] = ()
    numbers_end: int = NUMBERS.stop
    """Index of the first knob's column."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A trial that did not complete."""

    trial_id: str
    state: str
    state_words: str
    error: str
    """Its message, empty where it has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FailuresSection(Section):
    """What went wrong."""

    template: ClassVar[str] = "failures.html.j2"
    remedies: Sequence[tuple[str, str]] = ()
    """How many trials ended in a state, and what to do about it."""
    failures: Sequence[Failure] = ()


def trials_section(evidence: Evidence) -> Section:
    """Every trial, sortable."""
    trials, shown = evidence.trials, _shown_trials(evidence)
    if trials.empty:
        return TrialsSection(anchor="trials", link="Trials", title="Trials", words="No trial has ended yet.")
    words = f"{len(trials):,} trials: {count_words(evidence)}. A click on a column head sorts by it."
    if len(shown) < len(trials):
        words += f" The {MAX_ROWS} with the best joint score are shown; the others are in trials.csv."
    knobs, front = evidence.varied, set(evidence.front["trial_id"])
    numeric = {len(HEADS) + i for i, name in enumerate(knobs) if pd.api.types.is_numeric_dtype(trials[name].dtype)}
    return TrialsSection(
        anchor="trials",
        link="Trials",
        title="Trials",
        words=words,
        heads=[*HEADS, *map(knob_name, knobs)],
        numeric=numeric | set(NUMBERS),
        rows=[_trial_row(row, knobs, front) for _, row in shown.iterrows()],
    )


def _shown_trials(evidence: Evidence) -> pd.DataFrame:
    trials = evidence.trials
    if len(trials) <= MAX_ROWS:
        return trials
    return trials.sort_values("joint_score", kind="stable", na_position="last").head(MAX_ROWS)


def _trial_row(row: pd.Series, knobs: Sequence[str], front: Container[str]) -> TrialRow:
    return TrialRow(
        trial_id=str(row["trial_id"]),
        is_on_front=str(row["trial_id"]) in front,
        source=text_of(row["source"]),
        state=str(row["state"]),
        state_words=state_words(row["state"]),
        numbers=(
            Number.of(row[SECONDS_PER_EPOCH], seconds_words),
            Number.of(row[VAL_MSE], "{:.4f}".format),
            Number.of(row["speedup_vs_baseline"], lambda value: factor(value) + "×"),
            Number.of(row["peak_memory_gib"], "{:.1f}".format),
            Number.of(row["joint_score"], signed),
        ),
        knobs=[text_of(row[name]) for name in knobs],
    )


def count_words(evidence: Evidence) -> str:
    """How many trials ended in each state."""
    counts = evidence.trials["state"].value_counts()
    return ", ".join(f"{counts[state]} {state_words(state)}" for state in State if counts.get(state, 0))


def failures_section(evidence: Evidence) -> Section:
    """Trials that did not complete, and what to do about each kind."""
    failures, words = evidence.failures, ""
    if failures.empty:
        words = "Every trial completed or was stopped early."
    elif len(failures) > MAX_FAILURES:
        words = f"The last {MAX_FAILURES} of {len(failures):,}; trials.csv holds all."
    counts = {state: int((failures["state"] == state).sum()) for state in REMEDIES}
    return FailuresSection(
        anchor="failures",
        link="Failures",
        title="What went wrong",
        words=words,
        remedies=[(f"{count} {state_words(state)}", REMEDIES[state]) for state, count in counts.items() if count],
        failures=[
            Failure(
                trial_id=str(row["trial_id"]),
                state=str(row["state"]),
                state_words=state_words(row["state"]),
                error="" if pd.isna(row["error"]) else str(row["error"]),
            )
            for _, row in failures.tail(MAX_FAILURES).iterrows()
        ],
    )
