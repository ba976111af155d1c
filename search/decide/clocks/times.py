"""The timings that a search has made, found again by the settings that decide a time."""

from collections.abc import Mapping
from typing import Any

from search.decide.clocks.trial import TIME_COLUMNS, Outcome
from timellm.contract.columns import CLEAN, SECONDS_PER_EPOCH
from timellm.contract.config import RunConfig
from timellm.contract.numbers import times_key


class TimeBook:
    """Keeps undisturbed timings for trials that differ in numbers alone."""

    def __init__(self) -> None:
        self._by_key: dict[str, tuple[str, Outcome]] = {}

    def known(self, config: RunConfig) -> tuple[str, Outcome] | None:
        """The trial that was timed with settings of the same time, and what was measured; or None."""
        return self._by_key.get(times_key(config.to_dict()))

    def add(self, trial_id: str, config: RunConfig, values: Mapping[str, Any]) -> None:
        """Take in a timing, if it is one that others may take: steady and undisturbed.

        Args:
            trial_id: The trial that was timed.
            config: Its settings.
            values: The worker's result, or the trial's row.
        """
        if values.get(SECONDS_PER_EPOCH) and values.get("timing_quality") in (CLEAN, None):
            kept = {name: values.get(name) for name in TIME_COLUMNS}
            self._by_key[times_key(config.to_dict())] = (trial_id, kept)
