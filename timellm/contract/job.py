"""What a worker is asked to do: the one form in which a trial goes from the search to the process that trains it."""

import dataclasses
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from timellm.contract.columns import State
from timellm.contract.errors import InputError

Clock = Literal["together", "time", "error"]
"""What a run measures: time and error in one training, its time alone, or its error alone."""


class EventKind(StrEnum):
    """What a training says while it runs: `event` of every line of events.jsonl, which holds the figures beside it."""

    STARTED = "started"
    """The process is there: its `pid`."""
    TRAINING = "training"
    """The first step comes now: `startup_seconds`, and how many `steps` there will be."""
    PROGRESS = "progress"
    """A loss was read: `step`, `epoch`, `samples`, `train_loss`, `learning_rate`."""
    VALIDATION = "validation"
    """Windows were validated: `step`, `epoch`, `samples`, `val_mse`, `val_mae`, `seconds_per_epoch`."""
    PROFILE = "profile"
    """Some steps were recorded, in a run that was asked to: the fields of the profile, and its `lines` as text."""
    DONE = "done"
    """The run has ended: its `state`."""


CLOCKS: tuple[Clock, ...] = typing.get_args(Clock)

BAD_INPUT = "is_bad_input"
"""Field of a worker's outcome, beside those of its result: true where it refused its input."""

MIN_TIMED_STEPS = 4
"""Optimizer steps that a timing is over, unless a job says otherwise."""

MAX_EXTRA_SECONDS = 20.0
"""Bound on the steps that a run which measures both takes only to be timed."""

MAX_TIMING_SECONDS = 60.0
"""Bound on the steady steps of a run that measures its time alone, unless a job says otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """What it takes to start one worker per device of a trial on several devices."""

    devices: int
    """Devices, each with a worker of its own."""
    resources: Mapping[str, float]
    """What Ray reserves for each of them: CPU and GPU."""
    address: str
    """Of the Ray to join."""
    command: tuple[str, ...] = ()
    """Program and first arguments of a worker."""
    project_root: str = ""
    """Folder that a worker's packages are found in."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of a worker."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One training: what to train, what to measure of it, and within which limits."""

    config: Mapping[str, Any]
    """The run's settings, from `RunConfig.to_dict`."""
    run_dir: str
    """Folder that the worker writes into, absolute."""
    threads: int
    """CPU threads of the worker."""
    max_memory_gib: float | None = None
    """Memory limit, GiB; None for none."""
    min_timed_steps: int = MIN_TIMED_STEPS
    """Optimizer steps that the timing is over at least."""
    max_timing_seconds: float = MAX_TIMING_SECONDS
    """Bound on the steady steps of a time job, seconds: after that, a wide interval takes no further steps."""
    rungs: tuple[int, ...] = ()
    """Training windows seen after which the worker validates besides the ends of epochs."""
    launch: Launch | None = None
    """How the workers of several devices are started; None on one."""
    clock: Clock = "together"
    """What is measured: time and error in one training, or one of the two."""
    prompt_memory_gib: float | None = None
    """Size limit of the prompt memory that error jobs share, GiB; None for none. Other jobs never use it."""
    order_seed: int | None = None
    """Seed of which training windows are seen and when, so that repeats can keep them; None for the run's own seed."""

    def __post_init__(self) -> None:
        """Refuse a clock that does not exist.

        Raises:
            InputError: If it does not.
        """
        if self.clock not in CLOCKS:
            raise InputError(f"A job's clock must be one of {', '.join(CLOCKS)}, got {self.clock!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Every field, as JSON types."""
        return json.loads(self.to_json())

    def to_json(self) -> str:
        """Every field as JSON, the content of a job file."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """The inverse of `to_json`; a file of an earlier version, without the newer fields, takes their defaults.

        Raises:
            InputError: If the text is not a job, or has a field that jobs do not have.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise InputError(f"A job must be JSON, got: {error}.") from None
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: Any) -> "Job":
        """The inverse of `to_dict`.

        Raises:
            InputError: If it is not a dict, or has a field that jobs do not have.
        """
        values = _checked(cls, values, "A job")
        values["rungs"] = tuple(values.get("rungs") or ())
        if values.get("launch") is not None:
            launch = _checked(Launch, values["launch"], "The launch of a job")
            launch["command"] = tuple(launch.get("command", ()))
            values["launch"] = Launch(**launch)
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a worker was ended from outside."""

    state: State
    """The state of its trial, where the worker leaves no result."""
    reason: str
    """Why it was ended and what to do, one line."""


def _checked(kind: type, values: Any, what: str) -> dict[str, Any]:
    """The fields of a dataclass from a dict, with none unknown and none missing that has no default."""
    if not isinstance(values, dict):
        raise InputError(f"{what} must be a JSON object, got {type(values).__name__}.")
    fields = {each.name: each for each in dataclasses.fields(kind)}
    unknown = sorted(set(values) - set(fields))
    missing = [
        name
        for name, each in fields.items()
        if name not in values and each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
    ]
    problems = [f"{what} has no field {name!r}; it has {', '.join(fields)}." for name in unknown]
    problems += [f"{what} must have the field {name!r}." for name in missing]
    if problems:
        raise InputError(problems)
    return dict(values)
