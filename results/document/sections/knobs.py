"""The sections about knobs: what each lever contributed, which knobs matter."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from results.analysis.effects import NOT_ENOUGH
from results.analysis.evidence import Evidence
from results.analysis.guide import expected_of_lever, expected_of_plan
from results.analysis.ratios import mse_change, speedup_ratio
from results.analysis.wording import NOT_TELLING, error_change_words, factor, percent
from results.document.figures_detail import importance_figure, lever_figure
from results.document.parts import Plot, Section, Table, gib_words
from timellm.contract.columns import SECONDS_PER_EPOCH, VAL_MSE
from timellm.contract.words import MISSING


@dataclass(frozen=True, kw_only=True, slots=True)
class LeversSection(Section):
    """Plans and levers beside the guide's expectation."""

    template: ClassVar[str] = "levers.html.j2"
    plans: Table | None = None


def levers_section(evidence: Evidence) -> Section:
    """Plans and levers, measured, beside the guide's expectation."""
    anchor, link, title = "levers", "Levers", "What each lever contributed"
    plans, levers = _plans_table(evidence), lever_table(evidence)
    if levers.empty:
        words = evidence.effects.attrs["note"]
        return LeversSection(anchor=anchor, link=link, title=title, plans=plans, words=words)
    label = f"Speed-up of {len(levers)} levers with 95 % intervals; the table of this plot lists them."
    return LeversSection(
        anchor=anchor,
        link=link,
        title=title,
        plans=plans,
        words="Paired: trials that differ in this lever alone. Modelled: a linear model of all levers.",
        plot=Plot(name="levers", label=label, figure=lever_figure(levers)),
        table=_levers_table(levers, is_telling=evidence.recommendation.verdict.telling.holds),
    )


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


def _levers_table(levers: pd.DataFrame, is_telling: bool) -> Table:
    return Table(
        caption="Levers",
        summary="The levers as a table",
        heads=["Lever", "Measured", "Guide expects", "Validation MSE", "Method"],
        rows=[
            [
                row.label,
                _speedup_words(row.speedup, row.low, row.high),
                row.expected.words if row.expected else MISSING,
                percent(row.mse_percent) if is_telling else NOT_TELLING,
                f"{row.method}, {row.pairs} pairs" if row.method == "paired" else row.method,
            ]
            for row in levers.itertuples()
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
    importance = evidence.importance
    anchor, link, title, words = "importance", "Knobs", "Which knobs matter", importance.attrs["note"]
    if importance.empty:
        return Section(anchor=anchor, link=link, title=title, words=words)
    label = f"Importance of {len(importance)} knobs for both objectives; the table of this plot lists them."
    table = Table(
        caption="Importance of each knob",
        summary="The importances as a table",
        heads=["Knob", "Seconds per epoch", "Validation MSE"],
        rows=[
            [row.knob, *(f"{100 * share:.1f} %" for share in (row.seconds_per_epoch, row.val_mse))]
            for row in importance.itertuples()
        ],
        numeric=(1, 2),
    )
    plot = Plot(name="importance", label=label, figure=importance_figure(importance))
    return Section(anchor=anchor, link=link, title=title, words=words, plot=plot, table=table)
