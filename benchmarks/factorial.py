"""The recorded tables of a whole space: every configuration trained once, as far as each of its rungs.

`factorial.csv` holds one row per validation of whole runs, `factorial_time.csv` the timings and `factorial_error.csv`
the error trainings of a search that measures the two apart, `factorial.json` what they were recorded with.
"""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spaces import Space, load_space
from spaces.knobs import Value, value_text
from timellm.contract.columns import State, knob_column
from timellm.contract.errors import InputError
from timellm.contract.job import Clock
from timellm.contract.numbers import numbers_key, times_key

FOLDER = Path(__file__).resolve().parent
SPACE = FOLDER / "factorial.toml"
TABLE = FOLDER / "factorial.csv"
_MEASURED = ("state", "samples", "val_mse", "seconds_per_epoch", "seconds")

Key = tuple[str, ...]
Settings = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Validation:
    """What a run reports on its way.

    Attributes:
        samples: Training windows seen.
        val_mse: Validation error there; None if it is not finite.
        seconds_per_epoch: Projected from the steps timed so far; None where none was.
        seconds: Since the first step began: training and validations; of the last one, to the end of the run.
    """

    samples: int
    val_mse: float | None
    seconds_per_epoch: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Recorded:
    """A configuration's run.

    Attributes:
        settings: The value of every knob.
        state: How it ended.
        validations: At every rung, and at the end.
    """

    settings: Mapping[str, Value]
    state: str
    validations: tuple[Validation, ...]

    @property
    def last(self) -> Validation:
        """The validation at the end."""
        return self.validations[-1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """What a table was recorded with.

    Attributes:
        startup_seconds: From the start of a worker process to its first step, median.
        train_samples: Training windows of a run.
        val_samples: Validation windows of a run.
        rungs: Training windows after which a run validates on its way.
        threads: CPU threads.
        machine: What it ran on.
        versions: Of the packages that matter.
        revision: Commit of the code.
        date: Day of the first row, UTC.
        forked_startup_seconds: The same of a worker that is forked from one that has imported everything; None where
            it was not measured.
    """

    startup_seconds: float
    train_samples: int
    val_samples: int
    rungs: tuple[int, ...]
    threads: int
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    revision: str | None
    date: str
    forked_startup_seconds: float | None = None

    def write(self, table: Path) -> None:
        """Write the file beside a table."""
        table.with_suffix(".json").write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, table: Path) -> "Conditions | None":
        """The conditions of a table; None if nothing was recorded yet."""
        path = table.with_suffix(".json")
        if not path.is_file():
            return None
        values = json.loads(path.read_text())
        return cls(**{**values, "rungs": tuple(values["rungs"])})


class Factorial:
    """A table, on disk.

    Args:
        space: The space that it is of; its knobs list their values.
        path: The CSV file of whole runs; those of timings and error trainings lie beside it.
        clock: What its runs measure.
    """

    def __init__(self, space: Space, path: Path = TABLE, clock: Clock = "together") -> None:
        self.space, self.clock = space, clock
        self.path = path if clock == "together" else path.with_stem(f"{path.stem}_{clock}")
        self._names = [knob.name for knob in space.knobs]

    def runs(self) -> list[Settings]:
        """The configurations that are run: of those whose runs would measure the same, the first."""
        return list(self._first().values())

    def stand_ins(self) -> dict[Key, Key]:
        """Which of the runs a configuration takes its measurement from, by the keys of both."""
        first = self._first()
        configurations = list(self.space.configurations())
        return {self.key(one): self.key(first[self._measured_by(one)]) for one in configurations}

    def key(self, settings: Mapping[str, Value]) -> Key:
        """What tells a configuration from the others: its knobs' values as text."""
        return tuple(value_text(settings[name]) for name in self._names)

    def read(self) -> dict[Key, Recorded]:
        """Every run that has been recorded, by the key of its configuration.

        Raises:
            InputError: If the file has other columns than the space, or a value that its knob does not have.
        """
        if not self.path.is_file():
            return {}
        with open(self.path, newline="") as file:
            reader = csv.DictReader(file)
            if list(reader.fieldnames or ()) != self._header():
                raise InputError(
                    f"{self.path} must have the columns {', '.join(self._header())}, "
                    f"got {', '.join(reader.fieldnames or ())}. Move it away to record it anew."
                )
            rows = list(reader)
        grouped: dict[Key, list[dict[str, str]]] = {}
        for row in rows:
            grouped.setdefault(tuple(row[knob_column(name)] for name in self._names), []).append(row)
        return {key: self._recorded(key, parts) for key, parts in grouped.items()}

    def append(self, run: Recorded) -> None:
        """Add a configuration's rows, all of them at once."""
        is_new = not self.path.is_file()
        with open(self.path, "a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if is_new:
                writer.writerow(self._header())
            writer.writerows(
                [
                    *self.key(run.settings),
                    run.state,
                    part.samples,
                    _cell(part.val_mse),
                    _cell(part.seconds_per_epoch),
                    _cell(part.seconds),
                ]
                for part in run.validations
            )

    def require_whole(self) -> dict[Key, Recorded]:
        """The table, if every configuration of the space is in it.

        Raises:
            InputError: If one is missing.
        """
        recorded = self.read()
        missing = [one for one in self.runs() if self.key(one) not in recorded]
        if missing:
            raise InputError(
                f"{self.path} must hold every run of {self.space.name}, got {len(recorded)} and misses "
                f"{len(missing)}. Run `python -m benchmarks.record_factorial`."
            )
        return recorded

    def _first(self) -> dict[Key, Settings]:
        """The first configuration of those whose runs would measure the same."""
        first: dict[Key, Settings] = {}
        for settings in self.space.configurations():
            first.setdefault(self._measured_by(settings), settings)
        return first

    def _measured_by(self, settings: Mapping[str, Value]) -> Key:
        """What the runs of this clock depend on."""
        if self.clock == "together":
            return self.key(settings)
        whole = self.space.settings(settings)
        return (times_key(whole) if self.clock == "time" else numbers_key(whole),)

    def _header(self) -> list[str]:
        return [*(knob_column(name) for name in self._names), *_MEASURED]

    def _recorded(self, key: Key, rows: Sequence[Mapping[str, str]]) -> Recorded:
        settings = {}
        for name, text in zip(self._names, key, strict=True):
            knob = self.space.knob(name)
            found = [value for value in (knob.values if knob else ()) if value_text(value) == text]
            if not found:
                raise InputError(f"{self.path}: {name} must be one of the space's values, got {text!r}.")
            settings[name] = found[0]
        parts = (
            Validation(
                int(row["samples"]), _number(row["val_mse"]), _number(row["seconds_per_epoch"]), float(row["seconds"])
            )
            for row in rows
        )
        return Recorded(settings, rows[0]["state"], tuple(parts))


def recorded_space() -> Space:
    """The space of the table."""
    return load_space(str(SPACE))


def is_complete(run: Recorded) -> bool:
    """Whether a run has both objectives."""
    return run.state == State.COMPLETE and None not in (run.last.val_mse, run.last.seconds_per_epoch)


def _cell(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.6g}"


def _number(text: str) -> float | None:
    return float(text) if text else None
