"""Pieces that sections of a report are made of."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from results.document.markup import Child, Element, el
from timellm.contract.words import MISSING


@dataclass(frozen=True, slots=True)
class Section:
    """A section: its anchor, its heading, what it holds and the figures its plots show, by name."""

    anchor: str
    title: str
    children: list[Child]
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def element(self) -> Element:
        """The section as HTML."""
        heading = el("h2", {"id": f"{self.anchor}-title"}, self.title)
        return el("section", {"id": self.anchor, "aria-labelledby": f"{self.anchor}-title"}, heading, *self.children)


def plot(name: str, label: str) -> Element:
    """The place of a figure, with its description for screen readers."""
    return el("div", {"class": "plot", "data-figure": f"figure-{name}", "role": "img", "aria-label": label})


def number_cell(value: Any, words: Callable[[float], str]) -> Child:
    """A number with its exact value for sorting."""
    if pd.isna(value) or not math.isfinite(float(value)):
        return el("span", {"data-value": ""}, MISSING)
    return el("span", {"data-value": repr(float(value))}, words(float(value)))
