"""The sections of a report that show the trade: front, trials table, levers, importances."""

import math
from typing import Any

import pandas as pd

from results.analysis.effects import NOT_ENOUGH
from results.analysis.evidence import Evidence
from results.analysis.guide import expected_of_lever, expected_of_plan
from results.analysis.ratios import mse_change, speedup_ratio
from results.analysis.wording import NOT_TELLING, error_change_words, factor, percent, signed
from results.document.answer import state_words
from results.document.figures import (
    MAX_LINES,
    MAX_POINTS,
    growth_figure,
    parallel_figure,
    parallel_knobs,
    parallel_rows,
    pareto_figure,
    shown_points,
)
from results.document.figures_detail import importance_figure, lever_figure
from results.document.markup import Child, details, el, table
from results.document.page_parts import Section, number_cell, plot
from timellm.contract.columns import SECONDS_PER_EPOCH, VAL_MSE, knob_columns, knob_name
from timellm.contract.words import MISSING, seconds_words

MAX_ROWS = 500
"""Rows of the trials table; a browser slows down beyond."""


def front_section(evidence: Evidence) -> Section:
    """The Pareto plot and the front as a table."""
    if evidence.configurations.empty:
        return Section("front", "Speed against accuracy", [el("p", None, "No complete trial, so there is no front.")])
    figure = pareto_figure(evidence)
    count, front = len(evidence.configurations), len(evidence.front)
    label = f"Scatter plot of {count} complete configurations, seconds per epoch against validation MSE. "
    label += f"{front} of them are on the Pareto front; the table of this plot lists them."
    notes = [f"{front} of {count} complete configurations are on the front: no other is both faster and more accurate."]
    hidden = len(evidence.trials) - len(evidence.main)
    if hidden:
        notes.append(f"{hidden} trials of another fidelity are not drawn.")
    off = evidence.configurations[~evidence.configurations["trial_id"].isin(evidence.front["trial_id"]).to_numpy()]
    if len(shown_points(off, evidence)) < len(off):
        notes.append(f"Off the front the {MAX_POINTS:,} best of {len(off):,} are drawn.")
    if any(evidence.configurations["confirmations"] > 0):
        notes.append("Rings are means over seeds; their bars are standard deviations.")
    if evidence.controls:
        levels = [f"{control['name']} {float(control['val_mse']):.4f}" for control in evidence.controls]
        notes.append(f"Validation MSE of the controls, dotted where near: {', '.join(levels)}.")
    knobs = [name for name in knob_columns(evidence.front) if name in evidence.varied]
    rows = [
        [str(row["trial_id"]), str(row["source"]), *_objective_cells(row), *(_text(row[name]) for name in knobs)]
        for _, row in evidence.front.iterrows()
    ]
    heads = ["Trial", "Source", "Per epoch", "Validation MSE", *map(knob_name, knobs)]
    data = details("The front as a table", table("Configurations on the Pareto front", heads, rows, numeric=(2, 3)))
    return Section(
        "front",
        "Speed against accuracy",
        [el("p", None, " ".join(notes)), plot("pareto", label), data],
        {"pareto": figure},
    )


def trials_section(evidence: Evidence) -> Section:
    """Every trial, sortable."""
    trials, shown = evidence.trials, _shown_trials(evidence)
    if trials.empty:
        return Section("trials", "Trials", [el("p", None, "No trial has ended yet.")])
    words = f"{len(trials):,} trials: {state_words(evidence)}. A click on a column head sorts by it."
    if len(shown) < len(trials):
        words += f" Shown are the {MAX_ROWS} with the best joint score; the others are in trials.csv."
    knobs = evidence.varied
    plain = ["Trial", "Source", "State", "Per epoch", "Validation MSE", "Speed-up", "Memory, GiB", "Joint score"]
    numeric = {3, 4, 5, 6, 7} | {
        len(plain) + index for index, name in enumerate(knobs) if pd.api.types.is_numeric_dtype(trials[name].dtype)
    }
    heads: list[Child] = [el("button", {"type": "button"}, head) for head in [*plain, *map(knob_name, knobs)]]
    front = set(evidence.front["trial_id"])
    rows = [_trial_cells(row, knobs, front) for _, row in shown.iterrows()]
    body = table("Every trial", heads, rows, numeric=numeric, attributes={"class": "sortable"})
    return Section("trials", "Trials", [el("p", None, words), body])


def levers_section(evidence: Evidence) -> Section:
    """Plans and levers, measured, beside the guide's expectation."""
    children: list[Child] = []
    figures: dict[str, Any] = {}
    plans = _plan_rows(evidence)
    if plans:
        heads = ["Plan", "Measured", "Guide expects", "Validation MSE", "Memory, GiB"]
        caption = f"Plans against {evidence.recommendation.reference_name}"
        children += [el("h3", None, "Plans"), table(caption, heads, plans, numeric=range(1, 5))]
    levers = lever_table(evidence)
    children.append(el("h3", None, "One lever at a time"))
    if levers.empty:
        children.append(el("p", None, evidence.effects.attrs["note"]))
    else:
        figures["levers"] = lever_figure(levers)
        note = "Paired: trials that differ in this lever alone. Modelled: a linear model of all levers."
        label = f"Speed-up of {len(levers)} levers with 95 % intervals; the table of this plot lists them."
        is_telling = evidence.recommendation.verdict.telling.holds
        rows = [
            [
                row.label,
                _interval(row.speedup, row.low, row.high, "×"),
                row.expected.words if row.expected else MISSING,
                percent(row.mse_percent) if is_telling else NOT_TELLING,
                f"{row.method}, {row.pairs} pairs" if row.method == "paired" else row.method,
            ]
            for row in levers.itertuples()
        ]
        heads = ["Lever", "Measured", "Guide expects", "Validation MSE", "Method"]
        data = table("Levers", heads, rows, numeric=(1, 2, 3))
        children += [el("p", None, note), plot("levers", label), details("The levers as a table", data)]
    return Section("levers", "What each lever contributed", children, figures)


def lever_table(evidence: Evidence) -> pd.DataFrame:
    """The levers with a measured effect on time, the strongest first.

    Returns:
        Columns `label`, `speedup`, `low`, `high`, `expected`, `mse_percent`, `method`, `pairs`.
    """
    effects = evidence.effects[(evidence.effects["method"] != NOT_ENOUGH).to_numpy()]
    keys = ["knob", "value", "reference"]
    time = effects[(effects["objective"] == SECONDS_PER_EPOCH).to_numpy()]
    mse = effects[(effects["objective"] == VAL_MSE).to_numpy()].set_index(keys)["ratio"]
    rows = [
        {
            "label": f"{row.knob} {row.reference} → {row.value}",
            "speedup": 1 / row.ratio,
            "low": 1 / row.ratio_high,
            "high": 1 / row.ratio_low,
            "expected": expected_of_lever(row.knob, row.value, row.reference),
            "mse_percent": 100 * (mse.get((row.knob, row.value, row.reference), math.nan) - 1),
            "method": row.method,
            "pairs": row.pairs,
        }
        for row in time.itertuples()
    ]
    columns = ["label", "speedup", "low", "high", "expected", "mse_percent", "method", "pairs"]
    table = pd.DataFrame(rows, columns=columns).astype({"expected": object})
    table["expected"] = table["expected"].where(table["expected"].notna(), None)
    return table.sort_values("speedup", ascending=False, kind="stable").reset_index(drop=True)


def importance_section(evidence: Evidence) -> Section:
    """Which knobs matter."""
    importance = evidence.importance
    children: list[Child] = [el("p", None, importance.attrs["note"])]
    if importance.empty:
        return Section("importance", "Which knobs matter", children)
    rows = [
        [row.knob, *(f"{100 * share:.1f} %" for share in (row.seconds_per_epoch, row.val_mse))]
        for row in importance.itertuples()
    ]
    label = f"Importance of {len(importance)} knobs for both objectives; the table of this plot lists them."
    data = table("Importance of each knob", ["Knob", "Seconds per epoch", "Validation MSE"], rows, numeric=(1, 2))
    children += [plot("importance", label), details("The importances as a table", data)]
    return Section("importance", "Which knobs matter", children, {"importance": importance_figure(importance)})


def growth_section(evidence: Evidence) -> Section:
    """Hypervolume over wall clock."""
    growth = evidence.growth
    if growth.empty:
        words = "It needs a complete trial with a start time and a reference point in the manifest."
        return Section("growth", "How the front grew", [el("p", None, words)])
    point = evidence.manifest["reference_point"]
    words = (
        "The area between the front and a reference point, on logarithms of both objectives; confirmations are left "
        f"out. Reference: {seconds_words(point[SECONDS_PER_EPOCH])} per epoch, validation MSE {point[VAL_MSE]:.4g}."
    )
    untimed = int(evidence.main["started_at"].isna().sum())
    if untimed:
        words += f" Trials without a start time are left out: {untimed}."
    steps = growth[growth["hypervolume"].diff().fillna(1.0).gt(0).to_numpy()].tail(200)
    rows = [
        [row.trial_id, f"{row.elapsed_seconds / 60:.1f} min", str(row.trials), f"{row.hypervolume:.4f}"]
        for row in steps.itertuples()
    ]
    ends = growth["hypervolume"].iloc[[0, -1]]
    label = f"Hypervolume over wall clock, from {ends.iloc[0]:.3f} to {ends.iloc[1]:.3f}."
    data = table("Trials that made the front grow", ["Trial", "At", "Trials", "Hypervolume"], rows, numeric=(1, 2, 3))
    children: list[Child] = [el("p", None, words), plot("growth", label), details("Its steps as a table", data)]
    return Section("growth", "How the front grew", children, {"growth": growth_figure(evidence)})


def parallel_section(evidence: Evidence) -> Section:
    """Parallel coordinates."""
    if len(evidence.configurations) < 2 or not parallel_knobs(evidence):
        return Section("parallel", "Configurations side by side", [])
    rows, knobs = parallel_rows(evidence), parallel_knobs(evidence)
    words = "One line per configuration; the Pareto front stands out."
    if len(rows) < len(evidence.configurations):
        words += f" The front and the best, {MAX_LINES} of {len(evidence.configurations):,} configurations."
    label = (
        f"Parallel coordinates of {len(rows)} configurations over {', '.join(map(knob_name, knobs))}, time and MSE. "
    )
    label += "The trials table holds the same values."
    box = el(
        "div",
        {"class": "wide", "tabindex": "0", "role": "region", "aria-label": "Parallel coordinates, scrolls sideways"},
        plot("parallel", label),
    )
    return Section(
        "parallel", "Configurations side by side", [el("p", None, words), box], {"parallel": parallel_figure(evidence)}
    )


def _shown_trials(evidence: Evidence) -> pd.DataFrame:
    trials = evidence.trials
    if len(trials) <= MAX_ROWS:
        return trials
    return trials.sort_values("joint_score", kind="stable", na_position="last").head(MAX_ROWS)


def _trial_cells(row: pd.Series, knobs: list[str], front: set[str]) -> list[Child]:
    trial = str(row["trial_id"])
    badge = el("span", {"class": "badge"}, "front") if trial in front else None
    state = str(row["state"])
    return [
        [trial, " ", badge] if badge is not None else trial,
        _text(row["source"]),
        el("span", {"class": f"state {state}"}, state.replace("_", " ")),
        number_cell(row[SECONDS_PER_EPOCH], seconds_words),
        number_cell(row[VAL_MSE], "{:.4f}".format),
        number_cell(row["speedup_vs_baseline"], lambda value: factor(value) + "×"),
        number_cell(row["peak_memory_gib"], "{:.1f}".format),
        number_cell(row["joint_score"], signed),
        *(_text(row[name]) for name in knobs),
    ]


def _objective_cells(row: pd.Series) -> list[str]:
    return [seconds_words(row[SECONDS_PER_EPOCH]), f"{row[VAL_MSE]:.4f}"]


def _text(value: Any) -> str:
    return MISSING if pd.isna(value) else str(value)


def _interval(value: float, low: float, high: float, unit: str) -> str:
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"{factor(value)}{unit}"
    return f"{factor(value)}{unit} ({factor(low)} to {factor(high)})"


def _plan_rows(evidence: Evidence) -> list[list[Child]]:
    reference, verdict = evidence.recommendation.reference, evidence.recommendation.verdict
    rows: list[list[Child]] = []
    if reference.empty:
        return rows
    for _, row in evidence.named.iterrows():
        if row["trial_id"] == reference["trial_id"]:
            continue
        ratio, expected = speedup_ratio(row, reference), expected_of_plan(str(row["source"]))
        rows.append(
            [
                str(row["source"]),
                _interval(ratio.value, ratio.low, ratio.high, "×"),
                expected.words if expected else MISSING,
                error_change_words(
                    mse_change(row, reference)[0],
                    verdict.difference(row),
                    is_same=verdict.key(row) == verdict.reference,
                    is_telling=verdict.telling.holds,
                ),
                MISSING if pd.isna(row["peak_memory_gib"]) else f"{row['peak_memory_gib']:.1f}",
            ]
        )
    return rows
