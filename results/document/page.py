"""Builds report.html: one file that works offline, from everything a run folder holds."""

import functools
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import plotly.offline

from results.analysis.evidence import Evidence, gather
from results.document.answer import REFRESH_SECONDS, answer_section, headline, live_banner
from results.document.markup import Element, document, el, json_script, script
from results.document.page_parts import Section
from results.document.recommend import write_recommendation
from results.document.sections import (
    front_section,
    growth_section,
    importance_section,
    levers_section,
    parallel_section,
    trials_section,
)
from results.document.sections_detail import failures_section, print_section, time_section
from results.document.sections_errors import curves_section, examples_section
from results.document.standalone import write_plots
from timellm.contract.colours import DARK, LIGHT, style_variables
from timellm.contract.files import write_atomically
from timellm.contract.layout import RunFolder

SECTIONS: tuple[Callable[[Evidence], Section], ...] = (
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

SHORT_TITLES = {
    "front": "Front",
    "examples": "Forecasts",
    "trials": "Trials",
    "levers": "Levers",
    "importance": "Knobs",
    "learning": "Learning",
    "growth": "Growth",
    "parallel": "Side by side",
    "time": "Time",
    "failures": "Failures",
    "print": "Small print",
}

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""Content security policy: nothing outside the file can be loaded."""


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
    evidence = gather(folder)
    write_recommendation(folder, evidence.recommendation, evidence.manifest)
    sections = [section for build in SECTIONS if (section := build(evidence)).children]
    figures = {name: figure for section in sections for name, figure in section.figures.items()}
    if not evidence.is_live:
        write_plots(folder, figures)
    write_atomically(folder.report, render(evidence, sections))
    return folder.report


def render(evidence: Evidence, sections: list[Section]) -> str:
    """The whole page."""
    title = f"{headline(evidence)} – {evidence.name}" if evidence.recommendation.picks else evidence.name
    figures = [
        json_script(f"figure-{name}", figure) for section in sections for name, figure in section.figures.items()
    ]
    body = [
        el("a", {"class": "skip", "href": "#main"}, "Skip to the answer"),
        el("header", None, live_banner(evidence), _navigation(sections)),
        el("main", {"id": "main"}, answer_section(evidence), [section.element for section in sections]),
        el("footer", None, el("p", None, f"Made from {evidence.folder.path}. Works offline; nothing is loaded.")),
        *figures,
        script(plotly.offline.get_plotlyjs() if figures else ""),
        script(_resource("report.js")),
    ]
    return document(_head(evidence, title), body)


def _head(evidence: Evidence, title: str) -> list[Element]:
    style = el("style")
    style.text = style_sheet()
    head = [
        el("meta", {"charset": "utf-8"}),
        el("meta", {"http-equiv": "Content-Security-Policy", "content": POLICY}),
        el("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        el("meta", {"name": "color-scheme", "content": "light dark"}),
        el("title", None, title),
        style,
    ]
    if evidence.is_live:
        refresh = el("meta", {"http-equiv": "refresh", "content": str(REFRESH_SECONDS)})
        head += [el("noscript", None, refresh), el("meta", {"name": "refresh", "content": str(REFRESH_SECONDS)})]
    return head


def style_sheet() -> str:
    """The report's CSS with its colours filled in."""
    text = _resource("report.css")
    for name, colours in (("light", LIGHT), ("dark", DARK)):
        text = text.replace(f"/* {name} colours */", style_variables(colours))
    return text


def _navigation(sections: list[Section]) -> Element:
    links = [("answer", "Answer"), *((section.anchor, SHORT_TITLES[section.anchor]) for section in sections)]
    items = [el("li", None, el("a", {"href": f"#{anchor}"}, title)) for anchor, title in links]
    return el("nav", {"aria-label": "Sections"}, el("ul", None, items))


@functools.cache
def _resource(name: str) -> str:
    return resources.files("results.document").joinpath(name).read_text(encoding="utf-8")
