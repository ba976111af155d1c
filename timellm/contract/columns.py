"""The columns of the trials table: name, type, unit and meaning, each decided here once."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

Kind = Literal["text", "category", "integer", "number", "boolean", "time"]

_PREFIX = "config/"
"""Start of the name of a knob's column."""

VAL_MSE = "val_mse"
SECONDS_PER_EPOCH = "seconds_per_epoch"
PEAK_MEMORY_GIB = "peak_memory_gib"
OBJECTIVES = (SECONDS_PER_EPOCH, VAL_MSE)
"""The two objectives, both minimised, in the order of every table and point; a study holds them the other way round."""

DEFAULT_TIME_WEIGHT = 0.05
"""Weight of log time in the joint score: five times faster makes up for 8 % more MSE."""

MOST_TIME_WEIGHT = 100.0
"""Above it a ratio of times, raised to the weight, is too large for a number."""

FIDELITY = ("is_projected", "train_samples", "val_samples")
"""Rows that differ in one of these are never compared with each other."""


class State(StrEnum):
    """How a trial ended, from the most to the least useful."""

    COMPLETE = "complete"
    STOPPED_EARLY = "stopped_early"
    OUT_OF_MEMORY = "out_of_memory"
    DIVERGED = "diverged"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


STATES = tuple(str(state) for state in State)


class Status(StrEnum):
    """Where a search stands."""

    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"


CLEAN = "clean"
CONTENDED = "contended"
"""Values of `timing_quality`: whether other load was seen while a trial was timed."""

BASELINE = "baseline"
SAMPLER = "sampler"
CONFIRM = "confirm"
"""Sources that are not the name of a plan."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column of the trials table."""

    name: str
    """Name in trials.csv, trials.parquet and the DataFrame."""
    kind: Kind
    """Type of its values; `DTYPES` has the pandas dtype."""
    unit: str = ""
    """Unit of its values; empty where there is none."""
    description: str
    """One line for documentation and `DataFrame.attrs`."""


DTYPES: dict[Kind, str] = {
    "text": "string",
    "category": "category",
    "integer": "Int64",
    "number": "Float64",
    "boolean": "boolean",
    "time": "datetime64[us, UTC]",
}
"""Pandas dtype of each kind; all of them hold missing values."""

_TABLE: tuple[tuple[str, Kind, str, str], ...] = (
    ("trial_id", "text", "", "Name of the trial, unique in its run, and of its folder under trials/."),
    ("state", "category", "", "How the trial ended: " + ", ".join(STATES) + "."),
    ("source", "category", "", "Who proposed it: baseline, the name of a plan, sampler or confirm."),
    ("error", "text", "", "What went wrong and what to do; missing for a complete trial."),
    ("val_mse", "number", "scaled units squared", "Mean squared error of the best checkpoint, validation windows."),
    ("val_mae", "number", "scaled units", "Mean absolute error of the best checkpoint, validation windows."),
    ("test_mse", "number", "scaled units squared", "Mean squared error of the best checkpoint, test windows."),
    ("test_mae", "number", "scaled units", "Mean absolute error of the best checkpoint, test windows."),
    ("seconds_per_epoch", "number", "s", "Wall clock of one pass over all training windows, steady state."),
    (
        "seconds_per_epoch_low",
        "number",
        "s",
        "Lower end of its 95 % interval, which is for another process of these settings.",
    ),
    ("seconds_per_epoch_high", "number", "s", "Upper end of that interval."),
    ("is_projected", "boolean", "", "Whether seconds_per_epoch is projected from fewer windows than an epoch has."),
    ("seconds_per_epoch_with_validation", "number", "s", "An epoch and its share of the validation passes."),
    ("seconds_per_batch", "number", "s", "Wall clock of one micro batch, its share of the optimizer step included."),
    ("samples_per_second", "number", "windows/s", "Training windows per second, steady state."),
    ("startup_seconds", "number", "s", "From the start of the process to the first training step."),
    ("compile_seconds", "number", "s", "Compilation and warm-up, not part of seconds_per_epoch."),
    ("validation_seconds", "number", "s", "One pass over the validation windows."),
    ("total_seconds", "number", "s", "Wall clock of the whole trial, from process start to its end."),
    ("peak_memory_gib", "number", "GiB", "Highest memory in use: of the device, or of the process on a CPU."),
    ("epochs", "number", "epochs", "Passes over the training windows that were made."),
    ("train_samples", "integer", "windows", "Windows the trial trained on, all of them in a full run."),
    ("val_samples", "integer", "windows", "Windows it was validated on, all of them in a full run."),
    ("trainable_parameters", "integer", "", "Parameters that train."),
    ("total_parameters", "integer", "", "All parameters, the frozen language model's included."),
    ("timing_quality", "category", "", "clean, or contended: other load was seen during the timed part."),
    ("is_pareto", "boolean", "", "Whether it is on the Pareto front of its fidelity."),
    ("joint_score", "number", "", "log(MSE ratio) + weight * log(time ratio) to the baseline; lower is better."),
    ("speedup_vs_baseline", "number", "", "Baseline seconds_per_epoch over the trial's."),
    ("seed", "integer", "", "Seed of weights, dropout and order of the training windows."),
    ("started_at", "time", "UTC", "When the trial started."),
    ("error_from", "text", "", "Trial whose training gave this row's error; its own id where that was its own."),
    ("time_from", "text", "", "Trial whose timing gave this row's time; its own id where that was its own."),
    ("error_seeds", "text", "", "Seeds that this row's numbers were trained with, separated by spaces."),
    (
        "val_mse_low",
        "number",
        "scaled units squared",
        "Lower end of the 95 % interval of val_mse over seeds, from the spread pooled over all repeats.",
    ),
    ("val_mse_high", "number", "scaled units squared", "Upper end of that interval."),
    ("attention_kernel", "category", "", "eager, or the kernel that torch's fused attention takes on the device."),
    ("matmul_dtype", "category", "", "Type that the language model's matrix products are computed in."),
    ("data_wait_percent", "number", "%", "Share of the step time in which the device waited for its batches."),
    (
        "mean_device_utilisation_percent",
        "number",
        "%",
        "Time in which the GPU ran a kernel; CPU: cores that were used.",
    ),
    (
        "max_device_memory_gib",
        "number",
        "GiB",
        "Highest sample of the GPU's memory in use, by anything; CPU: resident.",
    ),
    ("mean_device_power_watts", "number", "W", "Mean power of the GPU; missing on a CPU."),
    ("max_device_temperature_celsius", "number", "°C", "Highest temperature of the GPU; missing on a CPU."),
    ("mean_cpu_utilisation_percent", "number", "%", "Share of its cores that the process and its loader workers used."),
    (
        "max_host_memory_gib",
        "number",
        "GiB",
        "Highest sample of the process's and its loader workers' resident memory.",
    ),
)

COLUMNS: tuple[Column, ...] = tuple(
    Column(name=name, kind=kind, unit=unit, description=description) for name, kind, unit, description in _TABLE
)
"""Every column but the knobs', in the order of the table."""

BY_NAME: dict[str, Column] = {column.name: column for column in COLUMNS}

RUN_COLUMN = Column(name="run", kind="category", description="Name of the run; added when a table is loaded.")


def is_setting_name(name: str) -> bool:
    """Whether a text may be the name of a setting: names become part of files that are read and run."""
    return re.fullmatch(r"[a-z][a-z0-9_]{0,99}", name) is not None


def is_knob_column(name: str) -> bool:
    """Whether a column holds a knob's values."""
    return name.startswith(_PREFIX) and len(name) > len(_PREFIX)


def knob_column(knob: str) -> str:
    """Name of a knob's column."""
    return _PREFIX + knob


def knob_name(column: str) -> str:
    """The knob of a column; the inverse of `knob_column`."""
    return column.removeprefix(_PREFIX)


def knob_columns(names: Iterable[Any]) -> list[str]:
    """The knobs' columns among the names of columns, in their order."""
    return [name for name in map(str, names) if is_knob_column(name)]


def knob_kind(values: Iterable[Any], default: Any = None) -> Kind:
    """The kind of a knob's column.

    Args:
        values: Its values that are not missing, as Python values or as text of a CSV file.
        default: The run configuration's default of the knob; its type decides, unless it is None.

    Returns:
        The default's kind, or else the narrowest kind that holds every value; text is a category.
    """
    for type_, kind in _KIND_OF_TYPE.items():
        if isinstance(default, type_):
            return kind
    texts = [str(value) for value in values]
    if texts and all(text in ("True", "False") for text in texts):
        return "boolean"
    if texts and all(_is_number(text, int) for text in texts):
        return "integer"
    if texts and all(_is_number(text, float) for text in texts):
        return "number"
    return "category"


_KIND_OF_TYPE: Mapping[type, Kind] = {bool: "boolean", int: "integer", float: "number", str: "category"}


def _is_number(text: str, type_: type[int] | type[float]) -> bool:
    try:
        type_(text)
    except ValueError:
        return False
    return "_" not in text
