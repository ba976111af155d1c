"""What the projections are compared on: settings, a made series with an epoch of a given size, reported epochs."""

from dataclasses import dataclass
from typing import Any

from benchmarks.series import made_series
from timellm.contract.columns import State
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.machine.cores import usable_cores

CHANNELS = ("a", "b", "c", "d")


@dataclass(frozen=True)
class Setting:
    """A configuration that is projected and trained."""

    name: str
    changes: dict[str, Any]


@dataclass(frozen=True)
class Epoch:
    """Seconds per epoch as reported, with the interval's ends where there are any."""

    seconds: float
    low: float
    high: float | None

    @classmethod
    def of(cls, name: str, result: dict[str, Any]) -> "Epoch":
        """From a run's result.

        Raises:
            InputError: If the run did not end complete.
        """
        if result["state"] != State.COMPLETE:
            raise InputError(f"Every run must end complete, got {result['state']} ({name}): {result['error']}")
        return cls(result["seconds_per_epoch"], result["seconds_per_epoch_low"], result["seconds_per_epoch_high"])

    def error_percent(self, trained: "Epoch") -> float:
        """Relative to the epoch that was trained, percent."""
        return 100 * (self.seconds / trained.seconds - 1)

    def covers(self, trained: "Epoch") -> bool:
        """Whether the interval holds the epoch that was trained."""
        return self.low <= trained.seconds <= (float("inf") if self.high is None else self.high)

    def __str__(self) -> str:
        """Seconds with their interval."""
        high = "unbounded" if self.high is None else f"{self.high:.2f}"
        return f"{self.seconds:.2f} ({self.low:.2f} to {high})"


def made_epoch(given: dict[str, Any], windows: int) -> dict[str, Any]:
    """Data settings of a made series whose epoch has exactly so many windows, unless the flags name data.

    Args:
        given: Flags that were given, by name.
        windows: Training windows of the series.

    Raises:
        InputError: If the channels cannot share the windows evenly.
    """
    if {"data", "root_path", "data_path"} & set(given):
        return {}
    lengths = RunConfig(**{name: given[name] for name in ("seq_len", "pred_len") if name in given})
    if windows < len(CHANNELS) or windows % len(CHANNELS):
        raise InputError(f"epoch_windows must be a multiple of {len(CHANNELS)}, the channels, got {windows}.")
    training_rows = windows // len(CHANNELS) + lengths.seq_len + lengths.pred_len - 1
    rows = next(count for count in range(training_rows, 2 * training_rows) if int(count * 0.7) == training_rows)
    path = made_series(f"epoch-{rows}-made.csv", rows, CHANNELS)
    return {"data": "custom", "root_path": str(path.parent), "data_path": path.name}


def chosen_settings(config: RunConfig, names: str | None) -> list[Setting]:
    """The settings of these names, separated by semicolons; None for all.

    Raises:
        InputError: For a name that there is not.
    """
    batch, workers = config.batch_size, min(2, usable_cores())
    every = [
        Setting("recompute, the baseline", {"prompt_prefix": "recompute"}),
        Setting("reuse", {"prompt_prefix": "reuse"}),
        Setting("store, 2 epochs", {"prompt_prefix": "store", "train_epochs": 2}),
        Setting("reuse, accumulation 4", {"prompt_prefix": "reuse", "accumulation_steps": 4}),
        Setting(
            f"reuse, SDPA, batch {2 * batch}",
            {"prompt_prefix": "reuse", "attention": "sdpa", "batch_size": 2 * batch},
        ),
        Setting(f"reuse, {workers} loader workers", {"prompt_prefix": "reuse", "num_workers": workers}),
    ]
    if names is None:
        return every
    wanted = [name.strip() for name in names.split(";")]
    if unknown := set(wanted) - {setting.name for setting in every}:
        known = "; ".join(setting.name for setting in every)
        raise InputError(f"A setting must be one of {known}, got {'; '.join(sorted(unknown))}.")
    return [setting for setting in every if setting.name in wanted]
