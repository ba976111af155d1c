"""What a benchmark recorded: sections of tables, kept as JSON. Its Markdown file is rendered from them."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timellm.contract.files import write_atomically

GPU_PLACEHOLDER = "GPU"
"""Heading that stands in for GPU sections while there are none."""


@dataclass(frozen=True)
class Notes:
    """A list: the conditions of a measurement, or what it says."""

    lines: tuple[str, ...]

    def __str__(self) -> str:
        """As Markdown."""
        return "\n".join(f"- {line}" for line in self.lines)


@dataclass(frozen=True)
class Table:
    """Rows under headings; the first column is text, the others are numbers."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        """As Markdown."""
        lines = ["| " + " | ".join(self.headings) + " |", "| --- |" + " ---: |" * (len(self.headings) - 1)]
        return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in self.rows)])

    def row(self, name: str) -> tuple[str, ...]:
        """The first row of this name.

        Raises:
            KeyError: If there is none.
        """
        for row in self.rows:
            if row[0] == name:
                return row
        raise KeyError(name)


@dataclass(frozen=True)
class Text:
    """A paragraph of Markdown."""

    markdown: str

    def __str__(self) -> str:
        """As Markdown."""
        return self.markdown


Part = Notes | Table | Text
_KINDS: dict[str, type[Part]] = {"notes": Notes, "table": Table, "text": Text}


@dataclass(frozen=True)
class Section:
    """What was measured on one device, with one model."""

    heading: str
    parts: tuple[Part, ...]

    def __str__(self) -> str:
        """As Markdown."""
        return "\n\n".join([f"## {self.heading}", *map(str, self.parts)])

    def table(self, first_heading: str) -> Table:
        """The table whose first column has this heading.

        Raises:
            KeyError: If there is none.
        """
        for part in self.parts:
            if isinstance(part, Table) and part.headings[0] == first_heading:
                return part
        raise KeyError(first_heading)


@dataclass(frozen=True)
class Record:
    """Everything that a benchmark's file says.

    Attributes:
        introduction: Title line and what stands above all sections, Markdown.
        sections: What was measured, one for each device and model.
        gpu_command: What to run where there is a GPU, shown while none was measured; None for what needs no GPU.
        closing: What stands below all sections, Markdown.
    """

    introduction: str
    sections: tuple[Section, ...] = ()
    gpu_command: str | None = None
    closing: str = ""

    def __str__(self) -> str:
        """As Markdown."""
        shown = list(self.sections)
        if self.gpu_command and not any(section.heading.startswith("GPU:") for section in shown):
            missing = f"Not measured yet. On a machine with a CUDA device: `{self.gpu_command}`"
            shown.append(Section(GPU_PLACEHOLDER, (Text(missing),)))
        return "\n\n".join(filter(None, [self.introduction.strip(), *map(str, shown), self.closing])) + "\n"

    def with_section(self, section: Section) -> "Record":
        """With a section more, in the place of the one of the same heading if there is one."""
        sections = {one.heading: one for one in self.sections} | {section.heading: section}
        return dataclasses.replace(self, sections=tuple(sections.values()))

    def write(self, markdown: Path) -> None:
        """Write the Markdown file, and the rows into the file beside it that ends in .json."""
        kinds = {kind: name for name, kind in _KINDS.items()}
        sections = [
            {"heading": one.heading, "parts": [{"kind": kinds[type(part)], **vars(part)} for part in one.parts]}
            for one in self.sections
        ]
        write_atomically(rows_file(markdown), json.dumps(sections, indent=1, ensure_ascii=False) + "\n")
        write_atomically(markdown, str(self))


def rows_file(markdown: Path) -> Path:
    """The file that holds the rows of a benchmark's Markdown file."""
    return markdown.with_suffix(".json")


def read_sections(markdown: Path) -> tuple[Section, ...]:
    """The sections that a benchmark has recorded; none where it has not run yet."""
    path = rows_file(markdown)
    if not path.is_file():
        return ()
    return tuple(
        Section(one["heading"], tuple(_part(part) for part in one["parts"])) for one in json.loads(path.read_text())
    )


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table of cells of any type."""
    return Table(tuple(headings), tuple(tuple(map(str, row)) for row in rows))


def _part(values: dict[str, Any]) -> Part:
    kind, *fields = values.pop("kind"), *values.values()
    if kind == "text":
        return Text(*fields)
    if kind == "notes":
        return Notes(tuple(values["lines"]))
    return Table(tuple(values["headings"]), tuple(map(tuple, values["rows"])))
