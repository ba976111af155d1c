"""The sections about knobs: what each lever contributed, which knobs matter."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from results.analysis.evidence import Evidence
from results.analysis.guide import expected_of_plan
from results.analysis.ratios import mse_change, speedup_ratio
from results.analysis.wording import NOT_TELLING, error_change_words, factor, percent
from results.document.parts import PlotBox, Section, Table, gib_words
from results.document.plots.importance import ImportancePlot, draw_importance, importance_plot
from results.document.plots.levers import LeversPlot, draw_levers, levers_plot
from timellm.contract.words import MISSING


@dataclass(frozen=True, kw_only=True, slots=True)
class LeversSection(Section):
    """Plans and levers beside the guide's expectation."""

    template: ClassVar[str] = "levers.html.j2"
    plans: Table | None = None


def levers_section(evidence: Evidence) -> Section:
    """Plans and levers, measured, beside the guide's expectation."""
    anchor, link, title = "levers", "Levers", "What each lever contributed"
    plans, plot = _plans_table(evidence), levers_plot(evidence)
    if not plot.levers:
        words = evidence.effects.attrs["note"]
        return LeversSection(anchor=anchor, link=link, title=title, plans=plans, words=words)
    label = f"Speed-up of {len(plot.levers)} levers with 95 % intervals; the table of this plot lists them."
    return LeversSection(
        anchor=anchor,
        link=link,
        title=title,
        plans=plans,
        words="Paired: trials that differ in this lever alone. Modelled: a linear model of all levers.",
        plot=PlotBox(name="levers", label=label, figure=draw_levers(plot)),
        table=_levers_table(plot, is_telling=evidence.recommendation.verdict.telling.holds),
    )


def _levers_table(plot: LeversPlot, is_telling: bool) -> Table:
    return Table(
        caption="Levers",
        summary="The levers as a table",
        heads=["Lever", "Measured", "Guide expects", "Validation MSE", "Method"],
        rows=[
            [
                lever.name,
                _speedup_words(lever.speedup, lever.low, lever.high),
                lever.expected.words if lever.expected else MISSING,
                percent(lever.mse_percent) if is_telling else NOT_TELLING,
                f"{lever.method}, {lever.pairs} pairs" if lever.method == "paired" else lever.method,
            ]
            for lever in plot.levers
        ],
        numeric=(1, 2, 3),
    )


def _speedup_words(value: float, low: float, high: float) -> str:
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"{factor(value)}×"
    return f"{factor(value)}× ({factor(low)} to {factor(high)})"


def _plans_table(evidence: Evidence) -> Table | None:
    """The plans against the reference; None where there are none."""
    reference = evidence.recommendation.reference
    if reference.empty:
        return None
    plans = evidence.named[(evidence.named["trial_id"] != reference["trial_id"]).to_numpy(dtype=bool)]
    if plans.empty:
        return None
    return Table(
        caption=f"Plans against {evidence.recommendation.reference_name}",
        heads=["Plan", "Measured", "Guide expects", "Validation MSE", "Memory, GiB"],
        rows=[_plan_cells(row, evidence) for _, row in plans.iterrows()],
        numeric=range(1, 5),
    )


def _plan_cells(row: pd.Series, evidence: Evidence) -> Sequence[str]:
    reference, verdict = evidence.recommendation.reference, evidence.recommendation.verdict
    ratio, expected = speedup_ratio(row, reference), expected_of_plan(str(row["source"]))
    return [
        str(row["source"]),
        _speedup_words(ratio.value, ratio.low, ratio.high),
        expected.words if expected else MISSING,
        error_change_words(
            mse_change(row, reference)[0],
            verdict.difference(row),
            is_same=verdict.key(row) == verdict.reference,
            is_telling=verdict.telling.holds,
        ),
        gib_words(row["peak_memory_gib"]),
    ]


def importance_section(evidence: Evidence) -> Section:
    """Which knobs matter."""
    plot, words = importance_plot(evidence), evidence.importance.attrs["note"]
    anchor, link, title = "importance", "Knobs", "Which knobs matter"
    if not plot.knobs:
        return Section(anchor=anchor, link=link, title=title, words=words)
    label = f"Importance of {len(plot.knobs)} knobs for both objectives; the table of this plot lists them."
    return Section(
        anchor=anchor,
        link=link,
        title=title,
        words=words,
        plot=PlotBox(name="importance", label=label, figure=draw_importance(plot)),
        table=_importance_table(plot),
    )


def _importance_table(plot: ImportancePlot) -> Table:
    return Table(
        caption="Importance of each knob",
        summary="The importances as a table",
        heads=["Knob", "Seconds per epoch", "Validation MSE"],
        rows=[[row.knob, f"{100 * row.of_seconds:.1f} %", f"{100 * row.of_mse:.1f} %"] for row in plot.knobs],
        numeric=(1, 2),
    )
