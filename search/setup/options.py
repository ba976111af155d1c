"""The flags of `search/run.py`."""

import argparse
import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin, get_type_hints

from results.analysis.pareto import MOST_TIME_WEIGHT
from search.decide.clocks.schedulers import SCHEDULERS
from search.decide.propose.samplers import SAMPLERS
from timellm.contract.columns import DEFAULT_TIME_WEIGHT
from timellm.contract.config import SETTINGS
from timellm.contract.errors import InputError
from timellm.contract.flags import StrictParser

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MOST_SEED = 2**62
_LONGEST = 3.2e8
"""Seconds of the longest duration, ten years."""
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd]?)+")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user asked for; None where a flag was left out and has no fixed default."""

    space: str
    set: tuple[str, ...]
    data: str
    root_path: str | None
    data_path: str | None
    features: str
    target: str | None
    llm_model: str
    llm_path: str | None
    time_budget: float | None
    num_trials: int | None
    fidelity: str | None
    clocks: str | None
    objective: str
    time_weight: float
    sampler: str
    scheduler: str | None
    seed: int
    warm_start: str | None
    max_concurrent: int | None
    gpus_per_trial: float | None
    devices_per_trial: int
    max_memory_gib: float | None
    trial_timeout: float | None
    confirm: int
    name: str | None
    runs_dir: str
    resume: str | None
    address: str | None
    dashboard: bool
    dry_run: bool

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON types."""
        return {**dataclasses.asdict(self), "set": list(self.set)}


def parse(arguments: Sequence[str]) -> tuple[Options, set[str]]:
    """The options of a command line, and the names of those it gives.

    Raises:
        InputError: For an unknown flag or a wrong value.
    """
    parser = _parser()
    values = vars(parser.parse_args(arguments))
    given = vars(_parser(argparse.SUPPRESS).parse_args(arguments))
    values["set"] = tuple(values["set"] or ())
    return Options(**values), set(given)


def option_problems(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with options that were kept as JSON: of another type, or no value that the flag takes."""
    problems, words = [], []
    for name, kind in get_type_hints(Options).items():
        value = values.get(name)
        if value is None or value is False:
            continue
        if not _is_of(kind, value):
            problems.append(f"{name} is {shortened(repr(value))}")
        elif name == "set":
            words += [f"--set={text}" for text in value]
        elif value is True:
            words.append(f"--{name}")
        else:
            words.append(f"--{name}={f'{value:f}' if isinstance(value, float) else value}")
    if not problems:
        try:
            parse(words)
        except InputError as error:
            problems = [str(error)]
    return problems


def _is_of(kind: Any, value: Any) -> bool:
    """Whether a JSON value is of a field's type; a whole number is a number too."""
    kinds = get_args(kind) if not isinstance(kind, type) or get_args(kind) else (kind,)
    if isinstance(value, list | tuple):
        return tuple in (get_origin(one) for one in (kind, *kinds)) and all(isinstance(item, str) for item in value)
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, tuple(one for one in kinds if isinstance(one, type))) or (
        float in kinds and isinstance(value, int)
    )


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


def shortened(text: str, most: int = 80) -> str:
    """A user's text as an error repeats it."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def _budget(text: str) -> float | None:
    return None if text == "none" else _duration(text)


def _at_least(least: int, kind: type = int, most: float = 10**9) -> Any:
    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        noun = "a whole number" if kind is int else "a number"
        if value is None or not value >= least:
            raise argparse.ArgumentTypeError(f"must be {noun} of at least {least}, got {shortened(text)!r}")
        if value > most:
            raise argparse.ArgumentTypeError(f"must be {noun} of at most {most:g}, got {shortened(text)!r}")
        return value

    return convert


def _above_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {shortened(text)!r}")
    return value


def _parser(default: Any = None) -> argparse.ArgumentParser:
    """The parser; with SUPPRESS as default it yields only the flags that are given."""
    parser = StrictParser(
        prog="search/run.py",
        description="Search the fastest accurate settings to train Time-LLM on this machine.",
        allow_abbrev=False,
        argument_default=default,
    )

    def of(value: Any) -> Any:
        return value if default is None else default

    add = parser.add_argument_group("what is searched").add_argument
    add(
        "--space",
        default=of("speed"),
        metavar="NAME|FILE.toml",
        help="speed, memory, quality, full, smoke, or your own file (speed)",
    )
    add("--set", action="append", metavar="KNOB=V[,V]", help="fix a knob, or narrow it to a few values")
    _add_task(parser, of)
    add = parser.add_argument_group("how long").add_argument
    add("--time_budget", type=_budget, default=of(600.0), metavar="TIME", help="90s, 10m, 1h30m or none (10m)")
    add("--num_trials", type=_at_least(1), metavar="N", help="trials at most, whichever comes first (no limit)")
    add(
        "--fidelity",
        metavar="full|auto|SAMPLES",
        help="full training, or training windows per trial; auto: what fits the time (auto)",
    )
    add(
        "--clocks",
        choices=("apart", "together"),
        help="apart: time as configured, the error on the cheapest path with the same numbers; together: one run for "
        "both (apart for SAMPLES and auto, together for full)",
    )
    add("--trial_timeout", type=_duration, metavar="TIME", help="a trial that takes longer has failed (never)")
    add(
        "--confirm",
        type=_at_least(0),
        default=of(0),
        metavar="K",
        help="train the K best again with 2 other seeds, beside the baseline (0)",
    )
    add = parser.add_argument_group("how it searches").add_argument
    add("--objective", choices=("pareto", "joint"), default=of("pareto"), help="two objectives or one (pareto)")
    add(
        "--time_weight",
        type=_at_least(0, float, MOST_TIME_WEIGHT),
        default=of(DEFAULT_TIME_WEIGHT),
        metavar="W",
        help=f"weight of log time; at {DEFAULT_TIME_WEIGHT:g}, 5 times faster makes up for 8 %% more MSE "
        f"({DEFAULT_TIME_WEIGHT:g})",
    )
    add("--sampler", choices=SAMPLERS, default=of("gp"), help="Optuna's sampler (gp)")
    add("--scheduler", choices=SCHEDULERS, help="stops poor trials early (none)")
    add("--seed", type=_at_least(0, most=_MOST_SEED), default=of(2021), help="of the sampler and of every run (2021)")
    add("--warm_start", metavar="NAME", help="let the sampler learn from an earlier run too")
    _add_machine(parser, of)
    return parser


def _add_task(parser: argparse.ArgumentParser, of: Any) -> None:
    names = SETTINGS["data"].choices
    add = parser.add_argument_group("data and language model").add_argument
    add("--data", choices=names, default=of("nyc-weather"), help="data set (nyc-weather, which is embedded)")
    add("--root_path", metavar="DIR", help="folder of the data file")
    add("--data_path", metavar="FILE", help="data file (default: the data set's published name)")
    add("--features", choices=("M", "S", "MS"), default=of("M"), help="all columns, one, or all to one (M)")
    add("--target", metavar="COLUMN", help="target column of S and MS (OT for published sets, else the last)")
    add(
        "--llm_model",
        default=of("smollm2-135m"),
        metavar="NAME",
        help="smollm2-135m, gpt2, bert, llama, or a transformers folder (smollm2-135m)",
    )
    add("--llm_path", metavar="DIR", help="local transformers folder of the language model")


def _add_machine(parser: argparse.ArgumentParser, of: Any) -> None:
    add = parser.add_argument_group("machine").add_argument
    add("--max_concurrent", type=_at_least(1), metavar="N", help="trials at once (one per device)")
    add("--gpus_per_trial", type=_at_least(0, float), metavar="N", help="GPUs of a trial (1 where there is one)")
    add(
        "--devices_per_trial",
        type=_at_least(1),
        default=of(1),
        metavar="N",
        help="train each trial on N GPUs, or by N processes on CPUs, together (1)",
    )
    add(
        "--max_memory_gib",
        type=_above_zero,
        metavar="GIB",
        help="memory limit of a trial on a device, GiB (the device's; on a CPU 90 %% of its memory)",
    )
    add("--address", metavar="HOST:PORT", help="join this Ray cluster instead of starting one")
    add(
        "--dashboard",
        action=argparse.BooleanOptionalAction,
        default=of(True),
        help="Ray's dashboard on 127.0.0.1 (on)",
    )
    add = parser.add_argument_group("run folder").add_argument
    add("--name", help="name of the run (a timestamp)")
    add("--runs_dir", default=of("runs"), metavar="DIR", help="where runs are kept (runs)")
    add("--resume", metavar="NAME", help="go on with an earlier run")
    add("--dry_run", action="store_true", default=of(False), help="print the plan and train nothing")
