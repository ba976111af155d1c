"""The sections that say how the numbers came about: where the time went, the small print."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from results.analysis.evidence import Evidence
from results.document.parts import PlotBox, Section, Table
from results.document.plots.breakdown import MAX_BARS, PARTS, BreakdownPlot, breakdown_plot, draw_breakdown
from timellm.contract.columns import CONTENDED
from timellm.contract.words import seconds_words

Pairs = Sequence[tuple[str, str]]
"""Terms and what they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrintSection(Section):
    """The small print."""

    template: ClassVar[str] = "print.html.j2"
    groups: Sequence[tuple[str, Pairs]]
    shared: Pairs
    """Knobs that every trial shares."""
    notes: Sequence[str]
    command: str


def time_section(evidence: Evidence) -> Section:
    """Where the wall clock of the trials went."""
    anchor, link, title, plot = "time", "Time", "Where the time went", breakdown_plot(evidence)
    if not plot.trials:
        return Section(anchor=anchor, link=link, title=title, words="No trial was timed.")
    whole = max(sum(plot.totals), 1e-9)
    shares = ", ".join(f"{part} {100 * total / whole:.0f} %" for part, total in zip(PARTS, plot.totals, strict=True))
    words = f"{plot.timed:,} trials took {seconds_words(whole)} together: {shares}."
    if len(plot.trials) < plot.timed:
        words += f" The last {MAX_BARS} are drawn."
    label = f"Stacked bars: where the time of {len(plot.trials)} trials went; the table of this plot lists it."
    return Section(
        anchor=anchor,
        link=link,
        title=title,
        words=words,
        plot=PlotBox(name="time", label=label, figure=draw_breakdown(plot)),
        table=_time_table(plot),
    )


def _time_table(plot: BreakdownPlot) -> Table:
    return Table(
        caption="Time of each trial by part",
        summary="The times as a table",
        heads=["Trial", *PARTS],
        rows=[[trial.trial_id, *map(seconds_words, trial.seconds)] for trial in plot.trials],
        numeric=range(1, len(PARTS) + 1),
    )


def print_section(evidence: Evidence) -> Section:
    """The small print: machine, software, data, fidelity, timing, settings."""
    manifest = evidence.manifest
    groups = (
        ("Machine", _machine(evidence)),
        ("Measurement", _measurement(evidence)),
        ("Search", _search(evidence)),
        ("Data and model", _data(evidence)),
        ("Software", _software(evidence)),
    )
    notes = [*manifest.notes, *manifest.data.notes]
    return PrintSection(
        anchor="print",
        link="Small print",
        title="Small print",
        groups=[(title, pairs) for title, pairs in groups if pairs],
        shared=list(evidence.fixed.items()),
        notes=list(dict.fromkeys(notes)),
        command=" ".join(manifest.command),
    )


def _pairs(entries: list[tuple[str, object]]) -> list[tuple[str, str]]:
    return [(term, str(value)) for term, value in entries if value not in (None, "", [])]


def _machine(evidence: Evidence) -> list[tuple[str, str]]:
    machine = evidence.manifest.machine
    return _pairs(
        [
            ("Processor", machine.cpu),
            ("Cores", machine.cores),
            ("Memory", f"{machine.memory_gib:.1f} GiB" if machine.memory_gib else None),
            ("GPU", ", ".join(machine.gpus) or "none"),
            ("System", machine.platform),
        ]
    )


def _measurement(evidence: Evidence) -> list[tuple[str, str]]:
    contended = int((evidence.trials["timing_quality"] == CONTENDED).sum())
    projected = int(evidence.trials["is_projected"].fillna(False).sum())
    other = len(evidence.trials) - len(evidence.main)
    return _pairs(
        [
            ("Fidelity", evidence.fidelity),
            ("Projected trials", f"{projected:,} of {len(evidence.trials):,}"),
            ("Trials of another fidelity", other or None),
            ("Contended trials", f"{contended:,} of {len(evidence.trials):,}, timed while other load was seen"),
            ("Seconds per epoch", "training pass only: no validation, start-up, compilation or warm-up"),
            ("Validation MSE", "scaled units, best checkpoint"),
        ]
    )


def _search(evidence: Evidence) -> list[tuple[str, str]]:
    manifest = evidence.manifest
    point, budget = manifest.reference_point or {}, manifest.time_budget_seconds
    corner = f"{point['seconds_per_epoch']:.4g} s, MSE {point['val_mse']:.4g}" if point else None
    return _pairs(
        [
            ("Space", manifest.space.name),
            ("Objective", manifest.objective),
            ("Time weight", manifest.time_weight),
            ("Sampler", manifest.sampler),
            ("Scheduler", manifest.scheduler),
            ("Time budget", seconds_words(float(budget)) if budget else None),
            ("Trials asked for", manifest.num_trials),
            ("Seed", manifest.seed),
            ("Reference point", corner),
            ("Started", _time(manifest.created_at)),
            ("Finished", _time(manifest.finished_at)),
        ]
    )


def _data(evidence: Evidence) -> list[tuple[str, str]]:
    data, backbone = evidence.manifest.data, evidence.manifest.backbone
    return _pairs(
        [
            ("Data", data.name),
            ("Columns", len(data.columns) or None),
            ("Data checksum", data.checksum),
            ("Language model", backbone.label or backbone.name),
            ("Model checksum", backbone.checksum),
        ]
    )


def _software(evidence: Evidence) -> list[tuple[str, str]]:
    manifest = evidence.manifest
    return _pairs([*manifest.versions.items(), ("Revision", manifest.git_revision)])


def _time(text: object) -> str | None:
    return None if not text else pd.Timestamp(str(text)).strftime("%Y-%m-%d %H:%M UTC")
