"""What a search prints: one table that grows as trials end, and a summary that fits one screen."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from results.columns import State
from results.wording import MISSING, seconds_words
from search.study import Proposal
from spaces import Space
from spaces.knobs import value_text

_COLUMNS = ("trial", "source", "state", "s/epoch", "val MSE", "speed-up", "GiB", "differs from the baseline")
_STYLES = {State.COMPLETE: "green", State.STOPPED_EARLY: "yellow", State.INTERRUPTED: "yellow"}
_WIDTHS = (6, 9, 13, 11, 7, 8, 5, 0)
_WIDTH = 140
_LINES_AROUND = 6


class Terminal:
    """Prints a search: a live table on a terminal, one line per trial elsewhere.

    Args:
        console: Where to print; None for standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or _console()
        self._live: Live | None = None
        self._rows: list[Mapping[str, Any]] = []
        self._running: dict[str, str] = {}
        self._space: Space | None = None

    def say(self, text: str) -> None:
        """Print a sentence."""
        self._console.print(Text(text), soft_wrap=True)

    def begin(self, space: Space, rows: Sequence[Mapping[str, Any]] = ()) -> None:
        """Start the table of a search."""
        self._space, self._rows = space, list(rows)
        if self._console.is_terminal:
            self._live = Live(self._table(), console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        else:
            self.say(_line(_COLUMNS))

    def started(self, proposal: Proposal) -> None:
        """Show that a trial runs."""
        self._running[proposal.trial_id] = proposal.source
        self._refresh()

    def ended(self, row: Mapping[str, Any]) -> None:
        """Show the row of an ended trial."""
        self._running.pop(str(row["trial_id"]), None)
        self._rows = [*(old for old in self._rows if old["trial_id"] != row["trial_id"]), row]
        if self._live is None:
            self.say(_line(self._cells(row)))
            if row.get("error"):
                self.say(f"       {row['error']}")
        self._refresh()

    def end(self) -> None:
        """Take the live table away; the whole table is printed in its place."""
        if self._live is not None:
            self._live.stop()
            self._live = None
            self._console.print(self._table(every=True))
            for row in self._rows:
                if row.get("error"):
                    self.say(f"{row['trial_id']}: {row['error']}")

    def table(self, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Print some rows of the trials table, such as the Pareto front."""
        table = _new_table(title)
        for row in rows:
            table.add_row(*self._cells(row))
        self._console.print(table)

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.update(self._table(), refresh=True)

    def _table(self, *, every: bool = False) -> Table:
        room = max(3, self._console.size.height - _LINES_AROUND - len(self._running))
        shown = self._rows if every else self._rows[-room:]
        hidden = len(self._rows) - len(shown)
        table = _new_table(f"{hidden} earlier trials are not shown" if hidden else None)
        for row in shown:
            table.add_row(*self._cells(row), style=_STYLES.get(row["state"], "red"))
        for trial_id, source in self._running.items():
            table.add_row(trial_id, source, "running", "", "", "", "", "", style="dim")
        return table

    def _cells(self, row: Mapping[str, Any]) -> list[str]:
        speedup = _number(row.get("speedup_vs_baseline"), "{:.2f}x")
        return [
            str(row["trial_id"]) + ("*" if row.get("is_pareto") is True else ""),
            str(row["source"]),
            str(row["state"]),
            seconds_words(row["seconds_per_epoch"]) if row.get("seconds_per_epoch") else MISSING,
            _number(row.get("val_mse"), "{:.4f}"),
            speedup,
            _number(row.get("peak_memory_gib"), "{:.1f}"),
            self._difference(row),
        ]

    def _difference(self, row: Mapping[str, Any]) -> str:
        """Knobs of a row that differ from the baseline's."""
        if self._space is None:
            return ""
        baseline = self._space.settings(self._space.baseline)
        changed = {
            knob.name: row[f"config/{knob.name}"]
            for knob in self._space.knobs
            if str(row[f"config/{knob.name}"]) != str(baseline[knob.name])
        }
        return " ".join(f"{name}={value_text(value)}" for name, value in changed.items()) or "nothing"


def _console() -> Console:
    """Standard output; 140 columns wide where it is no terminal."""
    return Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else _WIDTH)


def _line(cells: Sequence[str]) -> str:
    """One line of the table, for output that is no terminal."""
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()


def _new_table(title: str | None) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in _COLUMNS:
        is_number = name in ("s/epoch", "val MSE", "speed-up", "GiB")
        is_wide = name == "differs from the baseline"
        table.add_column(name, justify="right" if is_number else "left", no_wrap=not is_wide, overflow="fold")
    return table


def _number(value: Any, form: str) -> str:
    return MISSING if value is None or value != value else form.format(value)
