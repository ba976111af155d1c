"""The sections that show the trade: the front, how it grew, configurations side by side."""

from results.analysis.evidence import Evidence
from results.document.parts import PlotBox, Section, Table, text_of
from results.document.plots.front import MAX_POINTS, FrontPlot, draw_front, front_plot
from results.document.plots.growth import GrowthPlot, draw_growth, growth_plot
from results.document.plots.parallel import MAX_LINES, draw_parallel, parallel_plot
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
    plot, count, front = front_plot(evidence), len(evidence.configurations), len(evidence.front)
    label = (
        f"Scatter plot of {count} complete configurations, seconds per epoch against validation MSE. "
        f"{front} of them are on the Pareto front; the table of this plot lists them."
    )
    return Section(
        anchor=anchor,
        link=link,
        title=title,
        words=" ".join(_front_notes(evidence, plot)),
        plot=PlotBox(name="pareto", label=label, figure=draw_front(plot)),
        table=_front_table(evidence),
    )


def _front_notes(evidence: Evidence, plot: FrontPlot) -> list[str]:
    """What must be known to read the plot, a sentence each."""
    count, front = len(evidence.configurations), len(evidence.front)
    notes = [f"{front} of {count} complete configurations are on the front: no other is both faster and more accurate."]
    hidden = len(evidence.trials) - len(evidence.main)
    if hidden:
        notes.append(f"{hidden} trials of another fidelity are not drawn.")
    if plot.left_out:
        notes.append(f"Of the {len(plot.others) + plot.left_out:,} off the front the best {MAX_POINTS:,} are drawn.")
    if plot.confirmed:
        notes.append("Rings are means over seeds; their bars are standard deviations.")
    if plot.controls:
        levels = [f"{control.name} {control.val_mse:.4f}" for control in plot.controls]
        notes.append(f"Validation MSE of the controls, dotted where near: {', '.join(levels)}.")
    return notes


def _front_table(evidence: Evidence) -> Table:
    knobs = [name for name in knob_columns(evidence.front.columns) if name in evidence.varied]
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
    anchor, link, title, plot = "growth", "Growth", "How the front grew", growth_plot(evidence)
    if not plot.points:
        words = "This plot needs a complete trial with a start time and a reference point in the manifest."
        return Section(anchor=anchor, link=link, title=title, words=words)
    point = evidence.manifest.reference_point or {}
    words = (
        "The area between the front and a reference point, on logarithms of both objectives; confirmations are left "
        f"out. Reference: {seconds_words(point[SECONDS_PER_EPOCH])} per epoch, validation MSE {point[VAL_MSE]:.4g}."
    )
    untimed = int(evidence.main["started_at"].isna().sum())
    if untimed:
        words += f" Trials without a start time are left out: {untimed}."
    first, last = plot.points[0], plot.points[-1]
    label = f"Hypervolume over wall clock, from {first.hypervolume:.3f} to {last.hypervolume:.3f}."
    return Section(
        anchor=anchor,
        link=link,
        title=title,
        words=words,
        plot=PlotBox(name="growth", label=label, figure=draw_growth(plot)),
        table=_growth_table(plot),
    )


def _growth_table(plot: GrowthPlot) -> Table:
    return Table(
        caption="Trials that made the front grow",
        summary="Its steps as a table",
        heads=["Trial", "At", "Trials", "Hypervolume"],
        rows=[
            [step.trial_id, f"{step.minutes:.1f} min", str(step.trials), f"{step.hypervolume:.4f}"]
            for step in plot.steps[-MAX_STEPS:]
        ],
        numeric=(1, 2, 3),
    )


def parallel_section(evidence: Evidence) -> Section | None:
    """Parallel coordinates; nothing where there is nothing to compare."""
    plot = parallel_plot(evidence)
    if plot is None:
        return None
    words = "One line per configuration; the Pareto front stands out."
    if plot.left_out:
        words += f" Of {len(evidence.configurations):,} configurations {MAX_LINES} are drawn: the front, then the best."
    label = (
        f"Parallel coordinates of {len(plot.lines)} configurations over {', '.join(plot.knobs)}, time and MSE. "
        "The trials table holds the same values."
    )
    wide = "Parallel coordinates, scrolls sideways"
    return Section(
        anchor="parallel",
        link="Side by side",
        title="Configurations side by side",
        words=words,
        plot=PlotBox(name="parallel", label=label, figure=draw_parallel(plot), wide=wide),
    )
