"""The one way in which a benchmark runs: its flags, its measurement, its record."""

import abc
import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from benchmarks import NAMES
from benchmarks.document import date_in_index, today
from benchmarks.record import Record, Section, read_sections
from timellm.contract.errors import InputError

FOLDER = Path(__file__).resolve().parent


class Benchmark(abc.ABC):
    """A measurement with a command of its own: `python -m benchmarks NAME`."""

    name: ClassVar[str]
    """Name of the command and of the files that it writes."""
    title: ClassVar[str]
    """What it measures, one sentence for its help."""
    introduction: ClassVar[str]
    """Title line of its file and what stands above all sections, Markdown."""
    gpu_flags: ClassVar[str | None] = None
    """Flags of the command to run where there is a GPU; None for what has nothing to do with a GPU."""
    replaces_all: ClassVar[bool] = False
    """Whether a new measurement takes the place of every section of the file."""

    @abc.abstractmethod
    def parser(self) -> argparse.ArgumentParser:
        """Its flags; `--output` is added."""

    @abc.abstractmethod
    def measure(self, arguments: argparse.Namespace) -> Sequence[Section]:
        """Measure, and return what was found.

        Returns:
            The section of this device and model, or all sections of the file; empty where nothing is to be
            recorded, as in a process that measures one part for another.

        Raises:
            InputError: For flags that do not fit.
        """

    def finish(self, markdown: Path) -> None:  # noqa: B027
        """Write what else belongs beside the file."""

    def status(self) -> int:
        """Exit status: 0, or 1 where a limit that the benchmark keeps was passed."""
        return 0

    def run(self, flags: Sequence[str]) -> int:
        """Measure, print and record; returns the exit status."""
        parser = self.parser()
        parser.add_argument("--output", default=None, help="Markdown file; rows go into the .json beside it")
        arguments = parser.parse_args(flags)
        sections = self.measure(arguments)
        if not sections:
            return 0
        path = Path(arguments.output) if arguments.output else FOLDER / f"{self.name}.md"
        record = self.record(() if self.replaces_all else read_sections(path), path)
        for section in sections:
            print(f"\n{section}\n", flush=True)
            record = record.with_section(section)
        record.write(path)
        self.finish(path)
        if arguments.output is None:
            date_in_index(FOLDER / "README.md", self.name, today())
        return self.status()

    def record(self, sections: tuple[Section, ...], markdown: Path) -> Record:
        """The whole file of this path, with these sections."""
        command = None if self.gpu_flags is None else f"python -m benchmarks {self.name} {self.gpu_flags}".strip()
        return Record(self.introduction, sections, command)


def find(name: str) -> type[Benchmark]:
    """The benchmark of this name; its module is imported now.

    Raises:
        InputError: If there is none.
    """
    if name not in NAMES:
        raise InputError(f"A benchmark must be one of {', '.join(NAMES)}, got {name!r}.")
    module = importlib.import_module(f"benchmarks.{name}")
    return next(
        one
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, Benchmark) and one.__dict__.get("name") == name
    )
