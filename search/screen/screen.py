"""Shows what the loop of a search does, and keeps the manifest and the report with it."""

from collections.abc import Mapping, Sequence
from typing import Any

from search.decide.propose.study import Proposal
from search.decide.spend.plan import Plan
from search.decide.spend.spending import TimeSpent
from search.screen.live_report import LiveReport
from search.screen.terminal import Terminal
from search.setup.manifest import ManifestFile
from timellm.contract.manifest import Control


class Screen:
    """The listener of a session: shows what its loop does, and keeps manifest and report.

    Args:
        terminal: Where it is shown.
        manifest: Its manifest.
        report: The report while it runs.
        notes: What was said before the plan was made.
        time_spent: What the loop counts.
    """

    def __init__(
        self,
        terminal: Terminal,
        manifest: ManifestFile,
        report: LiveReport,
        notes: Sequence[str],
        time_spent: TimeSpent,
    ) -> None:
        self._terminal, self._manifest, self._report, self._notes = terminal, manifest, report, list(notes)
        self._time_spent = time_spent

    def planned(self, plan: Plan, rows: Sequence[Mapping[str, Any]]) -> None:
        """Say the plan and keep it."""
        for text in (str(plan), *plan.notes):
            self._terminal.say(text)
        self._manifest.plan(plan, [*self._notes, *plan.notes])
        self._update(rows)

    def started(self, proposal: Proposal, what: str) -> None:
        """Show that a trial runs."""
        self._terminal.started(proposal, what)

    def row(self, row: Mapping[str, Any] | None, rows: Sequence[Mapping[str, Any]]) -> None:
        """Show a row; the report is refreshed before the next run starts."""
        if row is not None:
            self._terminal.ended(row, rows)
        self._update(rows)
        self._report.refresh()

    def controls(self, controls: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> None:
        """Say and keep what forecasts without a language model reach."""
        self._manifest.keep(controls=tuple(map(Control.from_dict, controls)))
        self._update(rows)
        listed = ", ".join(f"{control['name']} {control['val_mse']:.4f}" for control in controls)
        self._terminal.say(f"Without a language model, validation MSE: {listed or 'not measured'}.")

    def note(self, text: str, *, is_kept: bool) -> None:
        """Print a note about a trial; the manifest keeps it if it explains a row."""
        self._terminal.say(text)
        if is_kept:
            self._manifest.keep(notes=(*self._manifest.values.notes, text))

    def _update(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._manifest.keep(time_spent={kind: round(value, 1) for kind, value in self._time_spent.seconds.items()})
        self._manifest.update(rows)
