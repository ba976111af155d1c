"""What manifest.json of a run folder holds: what was planned, with what, and where the search stands.

Every key has one definition here: its type, what it means, and what is read where it is missing. A run folder may be
somebody else's, edited, cut off or of an earlier version, so types are checked when it is read, missing keys take their
defaults, and unknown ones are kept as they are.
"""

import dataclasses
import datetime
import json
import math
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

from timellm.contract.columns import DEFAULT_TIME_WEIGHT, MOST_TIME_WEIGHT, is_setting_name
from timellm.contract.errors import InputError
from timellm.contract.words import shortened

_TIME = "an ISO 8601 time"
_TEXT, _OBJECT, _OBJECTS = "text", "an object", "a list of objects"
_NUMBER = "a finite number of at least 0"
_NUMBERS, _TEXTS = "an object of numbers", "a list of texts"
_SETTINGS, _PLANS = "an object of settings", "an object of such objects"
_WEIGHT = f"a finite number from 0 to {MOST_TIME_WEIGHT:g}"
_REMEDIES = {_WEIGHT: f". Write the weight to score with, or remove it for {DEFAULT_TIME_WEIGHT:g}"}
"""What to do about a wrong value, by its kind, where that is not obvious."""
_RUN_COMMAND = "python timellm/run_main.py, with PyTorch's launcher before it or without"
_INTERPRETER = "the path of a Python interpreter"
_PYTHON = re.compile(r"(.*[/\\])?(python|pypy)[\w.+-]*|", re.DOTALL | re.IGNORECASE)
_LAUNCHED = re.compile(
    r"python (-m torch\.distributed\.run --standalone --nproc_per_node [0-9]{1,4} )?timellm/run_main\.py"
)

Settings = Annotated[Mapping[str, Any], _SETTINGS]
"""Settings of a run by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What is read from JSON and written to it, unknown keys included."""

    other: Mapping[str, Any] = field(default_factory=dict)
    """Keys that this version does not know."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """A record of JSON whose types are right; a key that is missing or null takes its default."""
        hints = _hints(cls)
        known = {name: _read(hint, values[name]) for name, hint in hints.items() if _has(values, name)}
        return cls(**known, other={name: value for name, value in values.items() if name not in hints})

    def to_dict(self) -> dict[str, Any]:
        """Every key, as JSON types."""
        known = {name: _written(getattr(self, name)) for name in _hints(type(self))}
        return {**known, **self.other}


@dataclass(frozen=True, kw_only=True, slots=True)
class SpaceRecord(Record):
    """The resolved search space, as `Space.to_dict` writes it."""

    name: str | None = None
    """Name of the space."""
    description: str | None = None
    """Its description, a sentence."""
    fixed: Settings = field(default_factory=dict)
    """Settings that every trial has."""
    knobs: tuple[Mapping[str, Any], ...] = ()
    """What is varied, one object per knob."""
    baseline: Settings = field(default_factory=dict)
    """The knobs' values in the baseline."""
    plans: Annotated[Mapping[str, Any], _PLANS] = field(default_factory=dict)
    """The knobs' values that are tried first, by the name of the plan."""
    exclusions: tuple[Mapping[str, Any], ...] = ()
    """Combinations that are not tried, with the reason of each."""
    search: Mapping[str, Any] = field(default_factory=dict)
    """Defaults of flags that the space changes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedFidelity(Record):
    """How much of the whole training a trial sees."""

    kind: str | None = None
    """full or samples."""
    train_samples: int | None = None
    """Windows that a trial trains on; None for all of them."""
    val_samples: int | None = None
    """Windows that it is validated on; None for all of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected(Record):
    """What the plan expects."""

    baseline_seconds: float | None = None
    """Seconds that the baseline takes."""
    trials: int | None = None
    """Trials that fit into the time budget."""
    spending: Mapping[str, Any] | None = None
    """How the time is spent if time and error are measured apart: seconds by kind, sets of numbers, seeds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine(Record):
    """What the search runs on."""

    cpu: str | None = None
    """Name of the processor."""
    cores: int | None = None
    """Cores that a process may use."""
    memory_gib: float | None = None
    """Main memory, GiB."""
    gpus: tuple[str, ...] = ()
    """Name of each GPU."""
    platform: str | None = None
    """Operating system."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFacts(Record):
    """The data that is forecast."""

    name: str | None = None
    """Name of the data set."""
    checksum: str | None = None
    """Of its values."""
    columns: tuple[str, ...] = ()
    """Names of its columns, in the file's order."""
    notes: tuple[str, ...] = ()
    """What was done to the values when they were read."""
    windows: Annotated[Mapping[str, int], _NUMBERS] = field(default_factory=dict)
    """Windows of each split: train, validation, test."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneFacts(Record):
    """The language model that is reprogrammed."""

    name: str | None = None
    """As `--llm_model` named it."""
    label: str | None = None
    """For people."""
    kind: str | None = None
    """gpt2, llama or bert."""
    checksum: str | None = None
    """Of its weights."""
    hidden_size: int | None = None
    """Width of its hidden state."""
    layers: int | None = None
    """Layers that the whole model has."""
    vocabulary: int | None = None
    """Tokens that it knows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Control(Record):
    """A forecast without a language model, to compare with."""

    name: str = ""
    """What forecasts."""
    val_mse: float | None = None
    """Its error over the trials' validation windows, scaled units."""
    seconds_per_epoch: float | None = None
    """Time of an epoch, seconds; None for a naive forecast, which needs no training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest(Record):
    """What manifest.json holds."""

    name: str | None = None
    """Name of the run."""
    created_at: Annotated[str | None, _TIME] = None
    """When the search began, ISO 8601, UTC."""
    finished_at: Annotated[str | None, _TIME] = None
    """When it ended; None while it runs."""
    status: str | None = None
    """One of `timellm.contract.columns.Status`."""
    elapsed_seconds: float = 0.0
    """Seconds that all sessions together have run."""
    baseline_trial_id: str | None = None
    """The trial that ratios refer to."""
    reference_point: Annotated[Mapping[str, float] | None, _NUMBERS] = None
    """Reference point of the hypervolume, by objective; None before a trial was complete."""
    space: SpaceRecord = field(default_factory=SpaceRecord)
    """The resolved search space."""
    objective: str | None = None
    """pareto or joint."""
    time_weight: Annotated[float, _WEIGHT] = DEFAULT_TIME_WEIGHT
    """Weight of log time in the joint score."""
    time_budget_seconds: float | None = None
    """Time budget, seconds; None for no limit."""
    num_trials: int | None = None
    """Trials at most; None for no limit."""
    sampler: str | None = None
    """What proposed the trials."""
    scheduler: str | None = None
    """What stopped poor trials early."""
    seed: int | None = None
    """Seed of the sampler and of every run."""
    fidelity: PlannedFidelity | None = None
    """How much of the whole training a trial sees; None before the plan was made."""
    clocks: str | None = None
    """Whether time and error are measured apart or together."""
    expected: Expected = field(default_factory=Expected)
    """What the plan expects."""
    time_spent: Mapping[str, float] = field(default_factory=dict)
    """Seconds spent so far, by what they were spent on."""
    controls: tuple[Control, ...] = ()
    """Forecasts without a language model; empty before they were measured."""
    machine: Machine = field(default_factory=Machine)
    """What the search runs on."""
    features: tuple[str, ...] | None = None
    """What the machine and the language model can do; None in runs of earlier versions."""
    versions: Mapping[str, Any] = field(default_factory=dict)
    """Versions of Python and of packages."""
    git_revision: str | None = None
    """Commit of the project, with a plus sign if files differ from it."""
    data: DataFacts = field(default_factory=DataFacts)
    """The data that is forecast."""
    backbone: BackboneFacts = field(default_factory=BackboneFacts)
    """The language model that is reprogrammed."""
    run_defaults: Settings = field(default_factory=dict)
    """Default of every setting of a run, in the version that made the run folder."""
    run_config: Settings = field(default_factory=dict)
    """Settings that all trials share."""
    project_root: str | None = None
    """Folder of the project."""
    python: Annotated[str | None, _INTERPRETER] = None
    """The interpreter."""
    train_command: Annotated[tuple[str, ...] | None, _RUN_COMMAND] = None
    """How a training is started."""
    command: tuple[str, ...] = ()
    """The command of the search."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Every flag of the search by its name."""
    notes: tuple[str, ...] = ()
    """Every change that was printed."""

    @property
    def devices_per_trial(self) -> int:
        """Devices that a trial trains on together; 1 in runs of versions that had no such flag."""
        return int(self.options.get("devices_per_trial") or 1)

    @property
    def has_random_weights(self) -> bool:
        """Whether the language model was not pretrained, so that errors mean nothing."""
        return self.run_config.get("llm_weights") == "random"

    @property
    def control_errors(self) -> dict[str, float]:
        """Validation MSE of each control whose error is known, by name."""
        return {control.name: control.val_mse for control in self.controls if control.val_mse is not None}

    @property
    def naive_errors(self) -> dict[str, float]:
        """Those of the controls that need no training."""
        trained = {control.name for control in self.controls if control.seconds_per_epoch is not None}
        return {name: error for name, error in self.control_errors.items() if name not in trained}

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Read a manifest.

        Raises:
            InputError: With every key whose value has another type.
            ValueError: If the text is not a JSON object, or holds half of a surrogate pair.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"{type(values).__name__} in place of an object")
        json.dumps(values, ensure_ascii=False).encode()  # refuses half of a surrogate pair, which is not text
        if problems := manifest_problems(values):
            raise InputError(problems)
        return cls.from_dict(values)

    def to_json(self) -> str:
        """The content of manifest.json."""
        return json.dumps(self.to_dict(), indent=2) + "\n"


def manifest_problems(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with the types in a manifest, as "key must be ..., got ..."; keys may be missing or null."""
    return list(_problems(Manifest, values, ""))


def kinds_of(record: type[Record]) -> dict[str, str]:
    """What the value of each key must be, as an error says it."""
    return {name: _kind(hint) for name, hint in _hints(record).items()}


def _hints(record: type) -> Mapping[str, Any]:
    hints = typing.get_type_hints(record, include_extras=True)
    return {one.name: hints[one.name] for one in dataclasses.fields(record) if one.name != "other"}


def _plain(hint: Any) -> Any:
    """The type of a key that is given, without None and without its kind."""
    if typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    parts = [part for part in typing.get_args(hint) if part is not type(None)]
    return parts[0] if type(None) in typing.get_args(hint) else hint


def _inner(hint: Any) -> type[Record] | None:
    """The record that a key holds, or holds several of; None where it holds something else."""
    kind = _plain(hint)
    if typing.get_origin(kind) is tuple:
        kind = typing.get_args(kind)[0]
    return kind if isinstance(kind, type) and issubclass(kind, Record) else None


def _kind(hint: Any) -> str:
    if typing.get_origin(hint) is Annotated:
        return typing.get_args(hint)[1]
    kind = _plain(hint)
    is_several = typing.get_origin(kind) is tuple
    if _inner(hint) is not None:
        return _OBJECTS if is_several else _OBJECT
    if is_several:
        return _TEXTS if typing.get_args(kind)[0] is str else _OBJECTS
    if typing.get_origin(kind) is not None:
        return _NUMBERS if typing.get_args(kind)[1] is float else _OBJECT
    return _TEXT if kind is str else _NUMBER


def _has(values: Mapping[str, Any], name: str) -> bool:
    return values.get(name) is not None and values[name] != {}


def _read(hint: Any, value: Any) -> Any:
    """A JSON value as its key's type."""
    inner = _inner(hint)
    if isinstance(value, list):
        return tuple(value if inner is None else map(inner.from_dict, value))
    return value if inner is None else inner.from_dict(value)


def _written(value: Any) -> Any:
    """A key's value as JSON types."""
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_written(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def _problems(record: type[Record], values: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, hint in _hints(record).items():
        value, kind, inner = values.get(name), _kind(hint), _inner(hint)
        if value is None:
            continue
        if not _is(kind, value):
            yield f"{prefix}{name} must be {kind}, got {shortened(repr(value), 60)}{_REMEDIES.get(kind, '')}"
        elif inner is not None and isinstance(value, list):
            for index, item in enumerate(value):
                yield from _problems(inner, item, f"{prefix}{name}[{index}].")
        elif inner is not None:
            yield from _problems(inner, value, f"{prefix}{name}.")


def _is(kind: str, value: Any) -> bool:
    if kind == _TEXT:
        return isinstance(value, str)
    if kind == _TIME:
        return _is_time(value)
    if kind == _NUMBER:
        return _is_number(value) and value >= 0
    if kind == _WEIGHT:
        return _is_number(value) and 0 <= value <= MOST_TIME_WEIGHT
    if kind == _RUN_COMMAND:
        return _is(_TEXTS, value) and _LAUNCHED.fullmatch(" ".join(value)) is not None
    if kind == _INTERPRETER:
        return isinstance(value, str) and _PYTHON.fullmatch(value) is not None
    if kind == _SETTINGS:
        return isinstance(value, dict) and all(map(is_setting_name, value))
    if kind == _PLANS:
        return isinstance(value, dict) and all(_is(_SETTINGS, item) for item in value.values())
    if kind in (_TEXTS, _OBJECTS):
        inside = dict if kind == _OBJECTS else str
        return isinstance(value, list) and all(isinstance(item, inside) for item in value)
    return isinstance(value, dict) and (kind == _OBJECT or all(map(_is_number, value.values())))


def _is_time(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(datetime.datetime.fromisoformat(value))
    except ValueError:
        return False


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63 and math.isfinite(value)
    )
