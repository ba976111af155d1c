"""What the loop of a search tells those who show it and keep its manifest."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from search.decide.propose.study import Proposal
from search.decide.spend.plan import Plan


class Listener(Protocol):
    """Hears of everything that happens in a search."""

    def planned(self, plan: Plan, rows: Sequence[Mapping[str, Any]]) -> None:
        """The plan has been made."""

    def started(self, proposal: Proposal, what: str) -> None:
        """A run of a trial starts.

        Args:
            proposal: The trial.
            what: time, again (a second timing), error or together.
        """

    def row(self, row: Mapping[str, Any] | None, rows: Sequence[Mapping[str, Any]]) -> None:
        """A row has been written, and the study has been told.

        Args:
            row: The row; None where only the noise of errors is known better now.
            rows: The table with it.
        """

    def controls(self, controls: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> None:
        """The forecasts without a language model have been measured."""

    def note(self, text: str, *, is_kept: bool) -> None:
        """There is something to say about a trial.

        Args:
            text: A sentence.
            is_kept: Whether it explains a row, so that the manifest keeps it.
        """
