"""The commands of `results/report.py`."""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd

from results.analysis.comparison import compare
from results.analysis.importance import knob_importance, varied_knobs
from results.analysis.pareto import add_scores, pareto_front
from results.analysis.reference import reference_notes
from results.analysis.table import csv_text, load_trials, rows_of, write_trials
from results.document.page import build_report
from results.schema import to_parquet
from timellm.contract.columns import RUN_COLUMN, SECONDS_PER_EPOCH, VAL_MSE, Status, knob_columns, knob_name
from timellm.contract.declarations import Shown
from timellm.contract.errors import ExitStatus, InputError, one_line, printable, refuse
from timellm.contract.flags import CommandOptions, StrictParser, add_flags
from timellm.contract.layout import RunFolder
from timellm.contract.words import MISSING

SHOWN = ("trial_id", "source", "state", SECONDS_PER_EPOCH, VAL_MSE, "speedup_vs_baseline", "peak_memory_gib")
"""Columns of the tables on a terminal, beside the knobs that vary."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableOptions(CommandOptions):
    """What `table` prints."""

    # what is shown
    sort: Annotated[str, Shown("COLUMN")] = "trial_id"
    """Sort by a column."""
    state: Annotated[str | None, Shown("STATE", default="all")] = None
    """Only trials in this state."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportanceOptions(CommandOptions):
    """How `importance` is computed."""

    # how
    evaluator: Literal["fanova", "ped-anova"] = "fanova"
    """Optuna's evaluator of importances."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportOptions(CommandOptions):
    """What `export` writes."""

    # the file
    format: Literal["csv", "parquet", "json"] = "csv"
    """Its format."""
    output: Annotated[str | None, Shown("FILE", default="standard output; parquet needs a file")] = None
    """Its name."""


def run(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments: Its name and arguments.

    Returns:
        The exit status: 0 done, 1 nothing usable came out, 2 wrong usage or input.
    """
    parsed = argparse.Namespace()
    try:
        parsed = _parser().parse_args(arguments)
        with warnings.catch_warnings(record=True) as caught:
            status: int = parsed.command(parsed)
        for message in dict.fromkeys(str(warning.message) for warning in caught):
            print(printable(f"warning: {message}"), file=sys.stderr)
        return status
    except InputError as error:
        return refuse(error, "error")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        place = error.filename or getattr(parsed, "output", None) or "output"
        reason = error.strerror or one_line(error).rstrip(".")
        return refuse(InputError(f"{place} cannot be written or read: {reason}."), "error")


def _parser() -> argparse.ArgumentParser:
    parser = StrictParser(
        prog="report.py", description="Reads the run folders of searches: tables, fronts and reports."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Any, words: str, runs: str | int | None, options: type | None = None) -> None:
        child = commands.add_parser(name, help=words, description=words)
        child.add_argument("runs", nargs=runs, metavar="RUN", help="a run folder, such as runs/NAME")
        child.set_defaults(command=command)
        if options is not None:
            add_flags(child, options)

    add("report", _report, "Rebuild scores, recommended/, plots/ and report.html of a run.", 1)
    add("table", _table, "Print the trials of one or several runs.", "+", TableOptions)
    add("front", _front, "Print the Pareto front of one or several runs.", "+")
    add("importance", _importance, "Print how much each knob matters for both objectives.", "+", ImportanceOptions)
    add("compare", _compare, "Print what two runs found, side by side.", 2)
    add("export", _export, "Write the trials of one or several runs to a file.", "+", ExportOptions)
    return parser


def _report(arguments: argparse.Namespace) -> int:
    folder = RunFolder(arguments.runs[0])
    manifest = folder.read_manifest()
    if manifest.status != Status.RUNNING:
        _rebuild_scores(folder, manifest.time_weight)
    print(build_report(folder))
    return 0


def _rebuild_scores(folder: RunFolder, weight: float) -> None:
    """Compute the table's scores again and write both files; a running search does so itself."""
    write_trials(folder, add_scores(rows_of(load_trials(folder.path)), weight))


def _table(arguments: argparse.Namespace) -> int:
    frame, options = load_trials(arguments.runs), TableOptions.of(vars(arguments))
    notes = reference_notes(frame)
    if options.sort not in frame:
        raise InputError(f"--sort must name a column, got {options.sort}. Columns: {', '.join(map(str, frame))}.")
    if options.state is not None:
        states = list(frame["state"].cat.categories)
        if options.state not in states:
            raise InputError(f"--state must be one of {', '.join(states)}, got {options.state}.")
        frame = frame[(frame["state"] == options.state).to_numpy()]
    _print_notes(notes)
    _print_table(frame.sort_values(options.sort, kind="stable"), ["error"] if frame["error"].notna().any() else [])
    return 0 if len(frame) else ExitStatus.NOTHING


def _front(arguments: argparse.Namespace) -> int:
    frame = load_trials(arguments.runs)
    front = pareto_front(frame)
    if front.empty:
        print("No complete trial, so there is no front.", file=sys.stderr)
        return ExitStatus.NOTHING
    _print_notes(reference_notes(frame))
    _print_table(front, ["repeats"] if front["repeats"].gt(1).any() else [])
    return 0


def _importance(arguments: argparse.Namespace) -> int:
    evaluator = ImportanceOptions.of(vars(arguments)).evaluator
    importance = knob_importance(load_trials(arguments.runs), evaluator)
    print(importance.attrs["note"], file=sys.stderr)
    if importance.empty:
        return ExitStatus.NOTHING
    print(importance.to_string(index=False, float_format="{:.3f}".format))
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    table = compare(*arguments.runs)
    for side, path in table.attrs["runs"].items():
        print(f"{side}: {path}")
    print(table.attrs["note"])
    print(table.to_string(na_rep="", float_format=_plain_number))
    return 0


def _export(arguments: argparse.Namespace) -> int:
    frame, options = load_trials(arguments.runs), ExportOptions.of(vars(arguments))
    _write_table(frame, options.format, options.output)
    _print_notes(reference_notes(frame))
    return 0


def _write_table(frame: pd.DataFrame, kind: str, output: str | None) -> None:
    if kind == "parquet":
        if output is None:
            raise InputError("Parquet is binary, so it needs a file: add --output FILE.")
        Path(output).write_bytes(to_parquet(frame))
        return
    if kind == "csv":
        text = csv_text(frame)
    else:
        text = frame.to_json(orient="records", date_format="iso", double_precision=15, indent=1) + "\n"
    if output is None:
        sys.stdout.write(text)
    else:
        Path(output).write_text(text, encoding="utf-8")


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        print(printable(f"note: {note}"), file=sys.stderr)


def _print_table(frame: pd.DataFrame, extra: Sequence[str]) -> None:
    runs = [RUN_COLUMN.name] if frame[RUN_COLUMN.name].nunique() > 1 else []
    columns = [*runs, *SHOWN, *extra, *varied_knobs(frame)]
    shown = frame[columns].rename(columns={name: knob_name(name) for name in knob_columns(columns)})
    if "error" in shown:
        shown["error"] = shown["error"].str.replace(r"\s+", " ", regex=True).str.slice(0, 60)
    shown = shown.astype(object).where(shown.notna(), MISSING)
    print(printable(shown.to_string(index=False, float_format=_plain_number)))


def _plain_number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
