"""The sections that show the trade: the front, how it grew, configurations side by side."""

import pandas as pd

from results.analysis.evidence import Evidence
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
from results.document.parts import Plot, Section, Table, text_of
from timellm.contract.columns import SECONDS_PER_EPOCH, VAL_MSE, knob_columns, knob_name
from timellm.contract.words import seconds_words

MAX_STEPS = 200
"""Rows of the table of trials that made the front grow, the last ones."""


def front_section(evidence: Evidence) -> Section:
    """The Pareto plot and the front as a table."""
    anchor, link, title = "front", "Front", "Speed against accuracy"
    if evidence.configurations.empty:
        words = "No complete trial, so there is no front."
        return Section(anchor=anchor, link=link, title=title, words=words)
    count, front = len(evidence.configurations), len(evidence.front)
    label = (
        f"Scatter plot of {count} complete configurations, seconds per epoch against validation MSE. "
        f"{front} of them are on the Pareto front; the table of this plot lists them."
    )
    return Section(
        anchor=anchor,
        link=link,
        title=title,
        words=" ".join(_front_notes(evidence)),
        plot=Plot(name="pareto", label=label, figure=pareto_figure(evidence)),
        table=_front_table(evidence),
    )


def _front_notes(evidence: Evidence) -> list[str]:
    """What must be known to read the plot, a sentence each."""
    count, front = len(evidence.configurations), len(evidence.front)
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
    return notes


def _front_table(evidence: Evidence) -> Table:
    knobs = [name for name in knob_columns(evidence.front) if name in evidence.varied]
    return Table(
        caption="Configurations on the Pareto front",
        summary="The front as a table",
        heads=["Trial", "Source", "Per epoch", "Validation MSE", *map(knob_name, knobs)],
        rows=[
            [
                str(row["trial_id"]),
                str(row["source"]),
                seconds_words(row[SECONDS_PER_EPOCH]),
                f"{row[VAL_MSE]:.4f}",
                *(text_of(row[name]) for name in knobs),
            ]
            for _, row in evidence.front.iterrows()
        ],
        numeric=(2, 3),
    )


def growth_section(evidence: Evidence) -> Section:
    """Hypervolume over wall clock."""
    anchor, link, title, growth = "growth", "Growth", "How the front grew", evidence.growth
    if growth.empty:
        words = "It needs a complete trial with a start time and a reference point in the manifest."
        return Section(anchor=anchor, link=link, title=title, words=words)
    point = evidence.manifest["reference_point"]
    words = (
        "The area between the front and a reference point, on logarithms of both objectives; confirmations are left "
        f"out. Reference: {seconds_words(point[SECONDS_PER_EPOCH])} per epoch, validation MSE {point[VAL_MSE]:.4g}."
    )
    untimed = int(evidence.main["started_at"].isna().sum())
    if untimed:
        words += f" Trials without a start time are left out: {untimed}."
    ends = growth["hypervolume"].iloc[[0, -1]]
    label = f"Hypervolume over wall clock, from {ends.iloc[0]:.3f} to {ends.iloc[1]:.3f}."
    return Section(
        anchor=anchor,
        link=link,
        title=title,
        words=words,
        plot=Plot(name="growth", label=label, figure=growth_figure(evidence)),
        table=_growth_table(growth),
    )


def _growth_table(growth: pd.DataFrame) -> Table:
    steps = growth[growth["hypervolume"].diff().fillna(1.0).gt(0).to_numpy()].tail(MAX_STEPS)
    return Table(
        caption="Trials that made the front grow",
        summary="Its steps as a table",
        heads=["Trial", "At", "Trials", "Hypervolume"],
        rows=[
            [row.trial_id, f"{row.elapsed_seconds / 60:.1f} min", str(row.trials), f"{row.hypervolume:.4f}"]
            for row in steps.itertuples()
        ],
        numeric=(1, 2, 3),
    )


def parallel_section(evidence: Evidence) -> Section | None:
    """Parallel coordinates; nothing where there is nothing to compare."""
    if len(evidence.configurations) < 2 or not parallel_knobs(evidence):
        return None
    rows, knobs = parallel_rows(evidence), parallel_knobs(evidence)
    words = "One line per configuration; the Pareto front stands out."
    if len(rows) < len(evidence.configurations):
        words += f" The front and the best, {MAX_LINES} of {len(evidence.configurations):,} configurations."
    label = (
        f"Parallel coordinates of {len(rows)} configurations over {', '.join(map(knob_name, knobs))}, time and MSE. "
        "The trials table holds the same values."
    )
    wide = "Parallel coordinates, scrolls sideways"
    return Section(
        anchor="parallel",
        link="Side by side",
        title="Configurations side by side",
        words=words,
        plot=Plot(name="parallel", label=label, figure=parallel_figure(evidence), wide=wide),
    )
