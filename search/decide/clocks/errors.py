"""The errors that a search has trained: one line each in errors.jsonl, found again by numbers, seed and fidelity."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from results.analysis.errors import ErrorTraining, load_errors, repeats_of, set_key
from results.analysis.judgement import error_interval
from timellm.contract.columns import State
from timellm.contract.config import RunConfig
from timellm.contract.layout import RunFolder
from timellm.contract.numbers import numbers_key

_KNOWN = (State.COMPLETE, State.DIVERGED)
"""Ends that another training of the same numbers and seed would come to, too."""


class ErrorBook:
    """Keeps errors.jsonl.

    Args:
        folder: The run folder; lines of earlier sessions are read.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._trainings: list[ErrorTraining] = list(load_errors(folder))
        self._by_key = {numbers_key(one.config): one for one in self._trainings if one.state in _KNOWN}

    def known(self, config: RunConfig) -> ErrorTraining | None:
        """The training whose error a run has, because numbers, seed and fidelity are the same; or None.

        Args:
            config: The run's settings at its fidelity.
        """
        return self._by_key.get(numbers_key(config.to_dict()))

    def add(self, trial_id: str, config: RunConfig, outcome: Mapping[str, Any], seconds: float) -> ErrorTraining:
        """Write the line of an error training that has ended.

        Args:
            trial_id: The trial it was made for.
            config: That trial's settings at its fidelity.
            outcome: The worker's result.
            seconds: Wall clock that it took.

        Raises:
            OSError: If the disk refuses.
        """
        entry = ErrorTraining(
            trial_id=trial_id,
            numbers=set_key(config.to_dict()),
            config=config.to_dict(),
            seed=config.seed,
            train_samples=config.train_samples,
            val_samples=outcome.get("val_samples"),
            val_mse=_finite(outcome.get("val_mse")),
            val_mae=_finite(outcome.get("val_mae")),
            seconds=round(seconds, 3),
            steps=_steps(config, outcome),
            state=str(outcome["state"]),
            curve=outcome.get("curve") or (),
            examples=outcome.get("examples") or (),
        )
        self._trainings.append(entry)
        if entry.state in _KNOWN:
            self._by_key[numbers_key(config.to_dict())] = entry
        with self._folder.errors.open("a") as file:
            file.write(json.dumps(dataclasses.asdict(entry)) + "\n")
        return entry

    def seeds(self, config: RunConfig) -> tuple[int, ...]:
        """The seeds that a set of numbers was trained with, at a fidelity."""
        return tuple(sorted(self._repeats(config).get(set_key(config.to_dict()), {})))

    def columns(self, config: RunConfig) -> dict[str, Any]:
        """What is known of an error's noise, as columns of the trials table.

        Args:
            config: The settings of a row at its fidelity.
        """
        seeds = self.seeds(config)
        interval = error_interval(self._repeats(config), set_key(config.to_dict())) or (None, None)
        return {
            "error_seeds": " ".join(map(str, seeds)) or None,
            "val_mse_low": interval[0],
            "val_mse_high": interval[1],
        }

    def _repeats(self, config: RunConfig) -> dict[str, dict[int, float]]:
        """Errors by set of numbers and seed, of the trainings at the fidelity of a run."""
        same = (config.train_samples, config.val_samples)
        return repeats_of(
            one for one in self._trainings if (one.config["train_samples"], one.config["val_samples"]) == same
        )


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _steps(config: RunConfig, outcome: Mapping[str, Any]) -> int | None:
    """Optimizer steps of a finished training."""
    if outcome.get("steps") is not None:
        return int(outcome["steps"])
    if outcome["state"] != State.COMPLETE or config.train_samples is None:
        return None
    return math.ceil(config.train_samples / config.global_batch)
