"""What the sections of a report say, apart from how it looks: words, tables of words, a plot."""

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd

from timellm.contract.words import MISSING


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table whose cells are text."""

    caption: str
    """What it shows; read by screen readers, not shown."""
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    """The first cell of each heads its row."""
    numeric: Container[int] = ()
    """Indices of the columns that are aligned right."""
    summary: str = ""
    """What a reader opens to see the table; without it the table is seen at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlotBox:
    """A plot's place on the page."""

    name: str
    """Name of its file in plots/ and of its data on the page."""
    label: str
    """Its description for screen readers."""
    figure: Mapping[str, Any]
    """As plotly takes it."""
    wide: str = ""
    """Name of the box in which it scrolls sideways on a phone; without it the plot is as narrow as the page."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A section of words, a plot and the table of that plot; a section that holds more is a subclass."""

    template: ClassVar[str] = "plotted.html.j2"
    anchor: str
    link: str
    """Its name in the navigation."""
    title: str
    words: str = ""
    plot: PlotBox | None = None
    table: Table | None = None


@dataclass(frozen=True, slots=True)
class Number:
    """A number in words, and its exact value for sorting, empty where there is none."""

    words: str
    exact: str = ""

    @classmethod
    def of(cls, value: Any, words: Callable[[float], str]) -> "Number":
        """A value that may be missing, in words."""
        if pd.isna(value) or not math.isfinite(float(value)):
            return cls(MISSING)
        return cls(words(float(value)), repr(float(value)))


def text_of(value: Any) -> str:
    """A cell that may be missing."""
    return MISSING if pd.isna(value) else str(value)


def gib_words(value: Any, unit: str = "") -> str:
    """Memory that may be unknown, GiB."""
    return MISSING if pd.isna(value) else f"{value:.1f}{unit}"


def state_words(state: Any) -> str:
    """A state as words: `out of memory`."""
    return str(state).replace("_", " ")
