"""The errors of a run: every training that measured one, and which of them repeat each other with another seed."""

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from results.analysis.table import Path
from timellm.contract.columns import State
from timellm.contract.errors import InputError
from timellm.contract.files import require_ordinary
from timellm.contract.layout import RunFolder
from timellm.contract.numbers import numbers_key


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorTraining:
    """One training that measured an error and no time."""

    trial_id: str
    """Trial that it was made for."""
    numbers: str
    """Key of its set of numbers, the seed left out: equal keys are repeats of each other."""
    config: Mapping[str, Any]
    """Every setting it was trained with."""
    seed: int
    """Seed of weights, dropout and order of the windows."""
    train_samples: int | None = None
    """Windows it trained on."""
    val_samples: int | None = None
    """Windows it was validated on."""
    val_mse: float | None = None
    """Mean squared error, scaled units; None where the training did not reach one."""
    val_mae: float | None = None
    """Mean absolute error, scaled units."""
    seconds: float | None = None
    """Wall clock that it took, s."""
    steps: int | None = None
    """Optimizer steps."""
    state: str = State.COMPLETE
    """How it ended."""
    curve: Sequence[Mapping[str, float]] = ()
    """Validations during the training: `step`, `samples`, `val_mse`, on a part of the windows."""
    examples: Any = ()
    """Windows with history, truth, forecast and naive forecast, scaled units."""

    @property
    def is_usable(self) -> bool:
        """Whether it is a finite positive error of a complete training."""
        return self.state == State.COMPLETE and self.val_mse is not None and 0 < self.val_mse < float("inf")


_FIELDS = {field.name for field in fields(ErrorTraining)}
_NUMBERS = ("train_samples", "val_samples", "val_mse", "val_mae", "seconds", "steps")
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "trial_id": str,
    "config": dict,
    "seed": int,
    "state": str,
    "curve": list,
    "examples": list,
    **dict.fromkeys(_NUMBERS, (int, float)),
}
"""The type that each name of a line must have: the file may come from somebody else, or be edited."""


def load_errors(path: RunFolder | Path) -> tuple[ErrorTraining, ...]:
    """Every training that measured an error, in the order they ended.

    Args:
        path: A run folder.

    Returns:
        One entry per line of errors.jsonl; none where the run has no such file. A line that is cut short, as after a
        kill, is left out with a warning.

    Raises:
        InputError: If the file cannot be read.
    """
    folder = path if isinstance(path, RunFolder) else RunFolder(path)
    try:
        lines = require_ordinary(folder.errors).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise InputError(f"{folder.errors} must be readable, got: {error.strerror or error}.") from None
    entries = [_parsed(line) for line in lines if line.strip()]
    found = tuple(entry for entry in entries if entry is not None)
    if len(found) < len(entries):
        warnings.warn(
            f"{folder.errors}: {len(entries) - len(found)} of {len(entries)} lines cannot be read and are left out.",
            stacklevel=2,
        )
    return found


def repeats_of(errors: Iterable[ErrorTraining]) -> dict[str, dict[int, float]]:
    """Validation MSE by set of numbers and seed; of two trainings with one seed the later counts.

    Args:
        errors: Trainings of one fidelity.
    """
    repeats: dict[str, dict[int, float]] = {}
    for error in errors:
        if error.is_usable and error.val_mse is not None:
            repeats.setdefault(error.numbers, {})[error.seed] = error.val_mse
    return repeats


def set_key(settings: Mapping[str, Any]) -> str:
    """The key of a set of numbers without seed and fidelity: equal for trainings of one fidelity that are repeats.

    A row's own settings are those of a whole training; its fidelity is in columns of their own.
    """
    return numbers_key({**settings, "seed": 0, "train_samples": None, "val_samples": None})


def _parsed(line: str) -> ErrorTraining | None:
    """One line of the file; None where it does not hold a training."""
    try:
        values = json.loads(line)
        config = values["config"]
        if any(not _is_of(kind, values.get(name)) for name, kind in _TYPES.items()) or not _is_drawable(values):
            return None
        kept = {name: value for name, value in values.items() if name in _FIELDS and value is not None}
        return ErrorTraining(**{**kept, "config": config, "numbers": set_key(config), "seed": int(values["seed"])})
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _is_of(kind: type | tuple[type, ...], value: Any) -> bool:
    return value is None or (isinstance(value, kind) and not isinstance(value, bool))


def _is_drawable(values: Mapping[str, Any]) -> bool:
    """Whether the curve and the example windows hold numbers where a plot needs them."""
    points = [point.get(name) for point in values.get("curve") or () for name in ("step", "val_mse")]
    series = [one.get(name) for one in values.get("examples") or () for name in ("history", "truth", "forecast")]
    series += [one.get("naive") or [] for one in values.get("examples") or ()]
    numbers = [number for one in series if isinstance(one, list) for number in one]
    is_number = [isinstance(number, int | float) and not isinstance(number, bool) for number in points + numbers]
    return all(is_number) and all(isinstance(one, list) for one in series)
