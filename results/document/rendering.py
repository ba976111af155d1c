"""Renders the report's templates: the one place where text becomes HTML.

Templates hold all HTML and CSS. Every value that they print is escaped, because a run folder may be somebody else's.
Only this module marks text as HTML (`Markup`): text that was escaped, JSON that cannot end its script, and the scripts
that come with the packages.
"""

import functools
import json
import re
from importlib import resources
from typing import Any

import plotly.offline
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

PACKAGE, FOLDER = "results.document", "templates"

_NOT_ALLOWED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""What HTML or UTF-8 does not allow: surrogates, and control characters such as those of terminal colours."""

_UNIT = re.compile(r"(?<=\d) (?=(%|s|min|h|GiB)(\W|$))")
"""A space between a number and its unit."""


def render(template: str, **values: Any) -> str:
    """A page.

    Args:
        template: Name of its template, such as `page.html.j2`.
        values: What the template prints, by name.

    Raises:
        jinja2.UndefinedError: If the template uses a name that is not among the values.
        TypeError: If it prints None.
    """
    return _environment().get_template(template).render(values)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(PACKAGE, FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printed,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"verbatim": verbatim, "json_data": json_data}
    environment.globals |= {"script_file": script_file, "drawing_library": drawing_library}
    return environment


def _printed(value: object) -> object:
    """What is printed for a value, before it is escaped: numbers are kept on one line with their units."""
    if value is None:
        raise TypeError("A template must print a value, got None.")
    if isinstance(value, str) and not isinstance(value, Markup):
        return _UNIT.sub("\u00a0", clean(value))
    return value


def clean(text: str) -> str:
    """Text without the characters that HTML does not allow."""
    return _NOT_ALLOWED.sub("", text)


def verbatim(text: str) -> Markup:
    """Text with its spaces as they are, escaped: code, and what screen readers say."""
    return escape(clean(text))


def json_data(value: Any) -> Markup:
    """Data for the page's script; no text in it can end the script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(clean(text).replace("<", "\\u003c"))


@functools.cache
def script_file(name: str) -> Markup:
    """A script of this package, as it is."""
    return Markup(resources.files(PACKAGE).joinpath(FOLDER, name).read_text(encoding="utf-8"))


def drawing_library() -> Markup:
    """The script of plotly, as it is."""
    return Markup(plotly.offline.get_plotlyjs())
