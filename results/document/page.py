"""Builds report.html: one file that works offline, from everything a run folder holds."""

from collections.abc import Callable, Sequence
from pathlib import Path

from results.analysis.evidence import Evidence, gather
from results.document.answer import answer, headline, live
from results.document.parts import Section
from results.document.plots.standalone import write_plots
from results.document.recommend import write_recommendation
from results.document.rendering import render
from results.document.sections.errors import curves_section, examples_section
from results.document.sections.facts import print_section, time_section
from results.document.sections.knobs import importance_section, levers_section
from results.document.sections.trade import front_section, growth_section, parallel_section
from results.document.sections.trials import failures_section, trials_section
from timellm.contract.colours import DARK, LIGHT
from timellm.contract.files import write_atomically
from timellm.contract.layout import RunFolder
from timellm.contract.words import MISSING

SECTIONS: tuple[Callable[[Evidence], Section | None], ...] = (
    front_section,
    examples_section,
    trials_section,
    levers_section,
    importance_section,
    curves_section,
    growth_section,
    parallel_section,
    time_section,
    failures_section,
    print_section,
)
"""Each section in its order; one that has nothing to say is None."""


def build_report(folder: RunFolder) -> Path:
    """Write recommended/, plots/ and report.html from the manifest and the trials table.

    Args:
        folder: The run folder.

    Returns:
        The report's path.

    Raises:
        InputError: If the folder is not a run folder, or cannot be read.
        OSError: If the disk refuses.
    """
    return write_report(gather(folder))


def write_report(evidence: Evidence) -> Path:
    """`build_report` from what was gathered."""
    folder = evidence.folder
    write_recommendation(folder, evidence.recommendation, evidence.manifest)
    sections = [section for build in SECTIONS if (section := build(evidence)) is not None]
    if not evidence.is_live:
        write_plots(folder, {plot.name: plot.figure for section in sections if (plot := section.plot) is not None})
    write_atomically(folder.report, page(evidence, sections))
    return folder.report


def page(evidence: Evidence, sections: Sequence[Section]) -> str:
    """The whole page."""
    has_picks = bool(evidence.recommendation.picks)
    return render(
        "page.html.j2",
        title=f"{headline(evidence)} – {evidence.name}" if has_picks else evidence.name,
        live=live(evidence),
        answer=answer(evidence),
        sections=sections,
        has_plots=any(section.plot is not None for section in sections),
        path=str(evidence.folder.path),
        missing=MISSING,
        light=LIGHT,
        dark=DARK,
    )
