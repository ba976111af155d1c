"""The options of a search, each declared once: its flag, its limits and its help are all made from the declaration."""

import argparse
import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from search.decide.clocks.schedulers import SCHEDULERS
from search.decide.propose.samplers import SAMPLERS
from timellm.contract.columns import DEFAULT_TIME_WEIGHT, MOST_TIME_WEIGHT
from timellm.contract.config import SETTINGS, Features, RunConfig
from timellm.contract.declarations import (
    Above,
    AtLeast,
    AtMost,
    Declaration,
    OneOf,
    ReadBy,
    Shown,
    Switch,
    declarations_of,
)
from timellm.contract.flags import CommandOptions, StrictParser, add_flags
from timellm.contract.words import shortened

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd]?)+")
_LONGEST = 3.2e8
"""Seconds of the longest duration, ten years."""


def seconds_of(text: str) -> float:
    """Seconds of a duration such as 90, 90s, 10m or 1h30m.

    Raises:
        ValueError: If the text is not a duration.
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(text)
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)([smhd]?)", text))


def _duration(text: str) -> float:
    try:
        seconds = seconds_of(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _LONGEST:
        wanted = "a time above 0 and below ten years such as 90s, 10m or 1h30m"
        raise argparse.ArgumentTypeError(f"must be {wanted}, got {shortened(text)!r}")
    return seconds


def _budget(text: str) -> float | None:
    return None if text == "none" else _duration(text)


_COUNT = AtMost(10**9)
_RUN = RunConfig()
"""Has the defaults of what every run of a search is asked too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(CommandOptions):
    """What the user asks of a search; None where a flag was left out and has no fixed default."""

    # what is searched
    space: Annotated[str, Shown("NAME|FILE.toml")] = "speed"
    """Search space: speed, memory, quality, full, smoke, or your own file."""
    set: Annotated[tuple[str, ...], Shown("KNOB=V[,V]")] = ()
    """Fix a knob, or narrow it to a few values; may be repeated."""

    # data and language model
    data: Annotated[str, OneOf(SETTINGS["data"].choices), Shown(default=f"{_RUN.data}, which is embedded")] = _RUN.data
    """Data set."""
    root_path: Annotated[str | None, Shown("DIR")] = None
    """Folder of the data file."""
    data_path: Annotated[str | None, Shown("FILE", default="the data set's published name")] = None
    """Data file."""
    features: Features = _RUN.features
    """M: all columns; S: the target alone; MS: from all columns to the target."""
    target: Annotated[str | None, Shown("COLUMN", default="OT for published sets, else the last column")] = None
    """Target column of S and MS."""
    llm_model: Annotated[str, Shown("NAME")] = _RUN.llm_model
    """Language model: smollm2-135m, gpt2, bert, llama, or a transformers folder."""
    llm_path: Annotated[str | None, Shown("DIR")] = None
    """Local transformers folder of the language model."""

    # how long
    time_budget: Annotated[float | None, Above(0), AtMost(_LONGEST), ReadBy(_budget), Shown("TIME", "10m")] = 600.0
    """Time of the whole search: 90s, 10m, 1h30m, or none for no limit."""
    num_trials: Annotated[int | None, AtLeast(1), _COUNT, Shown("N", default="no limit")] = None
    """End after this many trials, or with the time budget, whichever comes first."""
    fidelity: Annotated[str | None, Shown("full|auto|SAMPLES", default="auto")] = None
    """full: each trial is a whole training; SAMPLES: it trains on so many windows; auto: what fits the time budget."""
    clocks: Annotated[
        Literal["apart", "together"] | None, Shown(default="apart for SAMPLES and auto, together for full")
    ] = None
    """apart: time as configured, the error on the cheapest path with the same numbers; together: one run for both."""
    trial_timeout: Annotated[
        float | None, Above(0), AtMost(_LONGEST), ReadBy(_duration), Shown("TIME", default="no limit")
    ] = None
    """Fail a trial that runs longer than this."""
    confirm: Annotated[int, AtLeast(0), _COUNT, Shown("K")] = 0
    """Train the K best again with 2 other seeds, beside the baseline."""

    # how it searches
    objective: Literal["pareto", "joint"] = "pareto"
    """pareto: time and error as two objectives; joint: one score of both."""
    time_weight: Annotated[float, AtLeast(0), AtMost(MOST_TIME_WEIGHT), Shown("W")] = DEFAULT_TIME_WEIGHT
    """Weight of log time; with the default, training 5 times faster makes up for 8 % more MSE."""
    sampler: Annotated[str, OneOf(tuple(SAMPLERS))] = "gp"
    """Optuna's sampler."""
    scheduler: Annotated[str | None, OneOf(tuple(SCHEDULERS)), Shown(default="none")] = None
    """moasha: stop poor trials early; none: let every trial end."""
    seed: Annotated[int, AtLeast(0), AtMost(2**62)] = _RUN.seed
    """Seed of the sampler and of every run."""
    warm_start: Annotated[str | None, Shown("NAME")] = None
    """Let the sampler learn from an earlier run too."""

    # machine
    max_concurrent: Annotated[int | None, AtLeast(1), _COUNT, Shown("N", default="one per device")] = None
    """Trials at the same time."""
    gpus_per_trial: Annotated[float | None, AtLeast(0), _COUNT, Shown("N", default="1 if the machine has GPUs")] = None
    """GPUs of a trial."""
    devices_per_trial: Annotated[int, AtLeast(1), _COUNT, Shown("N")] = 1
    """Train each trial on N GPUs together, or by N processes on CPUs."""
    max_memory_gib: Annotated[
        float | None, Above(0), Shown("GIB", default="the device's; on a CPU 90 % of its memory")
    ] = None
    """Memory limit of a trial on a device, GiB."""
    address: Annotated[str | None, Shown("HOST:PORT")] = None
    """Join this Ray cluster instead of starting one."""
    dashboard: Annotated[bool, Switch(), Shown(default="on")] = True
    """Start Ray's dashboard on 127.0.0.1."""

    # run folder
    name: Annotated[str | None, Shown(default="a timestamp")] = None
    """Name of the run."""
    runs_dir: Annotated[str, Shown("DIR")] = "runs"
    """Folder that runs are kept in."""
    resume: Annotated[str | None, Shown("NAME")] = None
    """Continue an earlier run."""
    dry_run: Annotated[bool, Switch()] = False
    """Print the plan and train nothing."""

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON types."""
        return {**dataclasses.asdict(self), "set": list(self.set)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Options":
        """The inverse of `to_dict`; options left out take their defaults, unknown ones are dropped.

        Raises:
            InputError: For a value that the flag does not take, with all such values.
        """
        return cls.of(values)


OPTIONS: Mapping[str, Declaration] = declarations_of(Options)
"""What each option declares, by name."""


def parse(arguments: Sequence[str]) -> tuple[Options, set[str]]:
    """The options of a command line, and the names of those it gives.

    Raises:
        InputError: For an unknown flag or a wrong value.
    """
    parser = StrictParser(
        prog="search/run.py",
        description="Search the fastest accurate settings to train Time-LLM on this machine.",
        allow_abbrev=False,
    )
    add_flags(parser, Options)
    given = vars(parser.parse_args(arguments))
    return Options.from_dict(given), set(given)
