"""Times trials again whose clocks were disturbed by other load: once each, at once, if the time budget allows it."""

from collections.abc import Mapping
from typing import Any

from timellm.contract.columns import CLEAN, State
from timellm.contract.layout import TrialFolder


class Retiming:
    """Decides which trials are timed again and which of the two timings counts.

    Lasting load would double the cost of every trial, so after a second timing that was disturbed too, none is made
    until the first timing of a trial is clean.
    """

    def __init__(self) -> None:
        self._pays = True

    def is_wanted(self, row: Mapping[str, Any]) -> bool:
        """Whether a trial is to be timed again.

        Args:
            row: Its first row.
        """
        if row["state"] != State.COMPLETE:
            return False
        if row["timing_quality"] == CLEAN:
            self._pays = True
            return False
        return self._pays

    def counts(self, outcome: Mapping[str, Any]) -> bool:
        """Whether a second timing takes the place of the first: only if it is complete and clean.

        Args:
            outcome: Fields of the worker's result.
        """
        self._pays = outcome.get("state") == State.COMPLETE and outcome.get("timing_quality") == CLEAN
        return self._pays


def start_note(trial_id: str) -> str:
    """What is printed before a second timing."""
    return f"{trial_id}: other load was noticed while it was timed, so it is timed again."


def end_note(trial_id: str, folder: TrialFolder, counts: bool) -> str:
    """What is printed and kept after a second timing.

    Args:
        trial_id: The trial.
        folder: Its files.
        counts: Whether the second timing counts.
    """
    if counts:
        place = "/".join(folder.retimed.path.parts[-3:])
        return f"{trial_id} was timed twice, the first time beside other load; the second time counts ({place})."
    return f"{trial_id} was timed twice, and not cleanly the second time either; the first time counts."
