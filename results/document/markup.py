"""HTML as a tree: text and attributes are escaped when it is written, so that no user text becomes markup."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias
from xml.etree import ElementTree

Element = ElementTree.Element
Child: TypeAlias = "Element | str | Iterable[Child] | None"

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Control characters, which HTML does not allow (terminal colours in an error, say)."""

_UNIT = re.compile(r"(?<=\d) (?=(%|s|min|h|GiB)(\W|$))")
"""A space between a number and its unit."""


def el(tag: str, attributes: Mapping[str, str] | None = None, *children: Child) -> Element:
    """An element.

    Args:
        tag: Its name.
        attributes: Its attributes.
        children: Elements, text, None (left out) and iterables of them.
    """
    element = ElementTree.Element(tag, {name: _clean(value) for name, value in (attributes or {}).items()})
    _append(element, children, _clean if tag in ("code", "pre") else _set)
    return element


def _append(element: Element, children: Iterable[Child], clean: Callable[[str], str]) -> None:
    for child in children:
        if child is None:
            continue
        if isinstance(child, ElementTree.Element):
            element.append(child)
        elif isinstance(child, str):
            if len(element):
                element[-1].tail = (element[-1].tail or "") + clean(child)
            else:
                element.text = (element.text or "") + clean(child)
        else:
            _append(element, child, clean)


def json_script(name: str, value: Any) -> Element:
    """Data for the page's script, under an id; no text in it can end the script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return script(text.replace("<", "\\u003c"), {"type": "application/json", "id": name})


def script(text: str, attributes: Mapping[str, str] | None = None) -> Element:
    """A script element; its text is written as it is."""
    element = ElementTree.Element("script", dict(attributes or {}))
    element.text = text
    return element


def document(head: Iterable[Element], body: Iterable[Element]) -> str:
    """A whole page, in English."""
    page = el("html", {"lang": "en"}, el("head", None, *head), el("body", None, *body))
    return "<!doctype html>\n" + ElementTree.tostring(page, encoding="unicode", method="html") + "\n"


def definition_list(pairs: Iterable[tuple[str, Child]], name: str) -> Element:
    """Terms and what they are, as a list of a CSS class."""
    return el(
        "dl", {"class": name}, [el("div", None, el("dt", None, term), el("dd", None, value)) for term, value in pairs]
    )


def table(
    caption: str,
    heads: Sequence[Child],
    rows: Iterable[Sequence[Child]],
    numeric: Iterable[int] = (),
    attributes: Mapping[str, str] | None = None,
) -> Element:
    """A table in a box that scrolls sideways and can be reached by keyboard.

    Args:
        caption: What it shows; read by screen readers, not shown.
        heads: Its column heads.
        rows: Its rows; the first cell heads its row.
        numeric: Indices of columns that are aligned right.
        attributes: Attributes of the table element.
    """
    right = set(numeric)
    classes = [{"class": "number"} if index in right else {} for index in range(len(heads))]
    top = [el("th", {"scope": "col", **extra}, head) for head, extra in zip(heads, classes, strict=True)]
    body = [
        el(
            "tr",
            None,
            [
                el("td", extra, cell) if index else el("th", {"scope": "row", **extra}, cell)
                for index, (cell, extra) in enumerate(zip(row, classes, strict=True))
            ],
        )
        for row in rows
    ]
    return el(
        "div",
        {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": caption},
        el(
            "table",
            attributes,
            el("caption", {"class": "hidden"}, caption),
            el("thead", None, el("tr", None, top)),
            el("tbody", None, body),
        ),
    )


def details(summary: str, *children: Child) -> Element:
    """What a reader may open."""
    return el("details", None, el("summary", None, summary), *children)


def _set(text: str) -> str:
    """Text with numbers kept on one line with their units."""
    return _UNIT.sub("\u00a0", _clean(text))


def _clean(text: str) -> str:
    return _CONTROL.sub("", text)
