"""What a search prints: one table that grows as trials end, and a summary that fits one screen."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from search.decide.propose.study import Proposal
from search.decide.spend.limits import Limits
from spaces import Space
from spaces.knobs import value_text
from timellm.contract.columns import CONFIRM, State, knob_column
from timellm.contract.words import MISSING, seconds_words
from timellm.output import Output

_COLUMNS = ("trial", "source", "state", "s/epoch", "val MSE", "speed-up", "GiB", "differs from the baseline")
_STYLES = {State.COMPLETE: "green", State.STOPPED_EARLY: "yellow", State.INTERRUPTED: "yellow"}
_WIDTHS = (6, 9, 13, 11, 7, 8, 5, 0)
_WIDTH = 140
_LINES_AROUND = 8
_REFRESHES_PER_SECOND = 0.1
"""Of the time left on a terminal: drawing takes milliseconds that a training on the same cores misses."""


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
        self._what: dict[str, str] = {}
        self._space: Space | None = None
        self._limits = Limits()

    def say(self, text: str) -> None:
        """Print a sentence."""
        self._console.print(Text(text), soft_wrap=True)

    def begin(self, space: Space, rows: Sequence[Mapping[str, Any]] = (), limits: Limits | None = None) -> None:
        """Start the table of a search.

        Args:
            space: Its space.
            rows: The trials table of earlier sessions.
            limits: What ends it.
        """
        self._space, self._rows, self._limits = space, list(rows), limits or Limits()
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._picture,
                console=self._console,
                refresh_per_second=_REFRESHES_PER_SECOND,
                transient=True,
            )
            self._live.start()
        else:
            self.say(_line(_COLUMNS))

    def started(self, proposal: Proposal, what: str = "together") -> None:
        """Show that a run of a trial is under way.

        Args:
            proposal: The trial.
            what: What is measured: its time, its time again, its error, or both together.
        """
        words = {"time": ", its time", "again": ", its time again", "error": ", its error"}
        self._running[proposal.trial_id] = proposal.source
        self._what[proposal.trial_id] = "running" + words.get(what, "")
        self._refresh()

    def ended(self, row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        """Show the row of an ended trial.

        Args:
            row: The row.
            rows: The table with it: a new row takes others off the front.
        """
        self._running.pop(str(row["trial_id"]), None)
        self._rows = list(rows)
        if self._live is None:
            self.say(_line(self._cells(row)))
            if row.get("error"):
                self.say(f"       {row['error']}")
            self.say(f"       {self._standing()}")
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

    def summary(self, title: str, rows: Sequence[Mapping[str, Any]], sentences: Sequence[str]) -> None:
        """Print some rows of the trials table and their conclusions; on a terminal no more than fits one screen.

        Args:
            title: Of the table.
            rows: The rows, such as the Pareto front; those in between are left out where there is no room.
            sentences: What is printed below.
        """
        below = [Text(sentence) for sentence in sentences]
        count = len(rows)
        if self._console.is_terminal:
            room = self._console.size.height - 1 - self._height(Group(*below))
            while count > 2 and self._height(self._part(title, rows, count)) > room:
                count -= 1
        self._console.print(self._part(title, rows, count))
        for text in below:
            self._console.print(text, soft_wrap=True)

    def _part(self, title: str, rows: Sequence[Mapping[str, Any]], count: int) -> Table:
        """The first row, the last row, and rows evenly between them."""
        if count < len(rows):
            title = f"{title}; {count} of {len(rows)} are shown"
            rows = [rows[round(index * (len(rows) - 1) / (count - 1))] for index in range(count)]
        table = _new_table(title)
        for row in rows:
            table.add_row(*self._cells(row))
        return table

    def _height(self, shown: RenderableType) -> int:
        """Lines on this console."""
        return len(self._console.render_lines(shown, pad=False))

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.refresh()

    def _picture(self) -> RenderableType:
        """The live table and where the search stands."""
        return Group(self._table(), Text(self._standing(), style="dim"))

    def _standing(self) -> str:
        """Trials so far, time left and the best so far."""
        trials = _progress(self._limits, sum(row["source"] != CONFIRM for row in self._rows))
        scored = [row for row in self._rows if row["state"] == State.COMPLETE and row.get("joint_score") is not None]
        if not scored:
            return f"{trials}; none is complete yet"
        best = min(scored, key=lambda row: row["joint_score"])
        speedup = _number(best.get("speedup_vs_baseline"), "{:.2f}x")
        return f"{trials}; best so far {best['trial_id']}: {speedup}, val MSE {_number(best.get('val_mse'), '{:.4f}')}"

    def _table(self, *, every: bool = False) -> Table:
        room = max(3, self._console.size.height - _LINES_AROUND - len(self._running))
        shown = self._rows if every else self._rows[-room:]
        hidden = len(self._rows) - len(shown)
        table = _new_table(f"{hidden} earlier trials are not shown" if hidden else None)
        for row in shown:
            table.add_row(*self._cells(row), style=_STYLES.get(row["state"], "red"))
        for trial_id, source in list(self._running.items()):
            table.add_row(trial_id, source, self._what.get(trial_id, "running"), "", "", "", "", "", style="dim")
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
            knob.name: row[knob_column(knob.name)]
            for knob in self._space.knobs
            if str(row[knob_column(knob.name)]) != str(baseline[knob.name])
        }
        return " ".join(f"{name}={value_text(value)}" for name, value in changed.items()) or "nothing"


def _console() -> Console:
    """Standard output; 140 columns wide where it is not a terminal."""
    output = Output(sys.stdout)
    return Console(file=cast(IO[str], output), highlight=False, width=None if output.isatty() else _WIDTH)


def _progress(limits: Limits, trials: int) -> str:
    """How many trials there were, and how much is left: `3 of 12 trials, 4 min 10 s left`."""
    of = f" of {limits.num_trials}" if limits.num_trials else ""
    count = f"{trials}{of} trial{'s' if (limits.num_trials or trials) != 1 else ''}"
    if limits.deadline is None:
        return count
    left = limits.deadline - time.time()
    return f"{count}, {seconds_words(left)} left" if left > 0 else f"{count}, the time is up"


def _line(cells: Sequence[str]) -> str:
    """One line of the table, for output that is not a terminal."""
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
