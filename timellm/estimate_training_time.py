"""What a training run would take, before anything is trained: `python timellm/estimate_training_time.py --help`."""

import argparse
import copy
import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from timellm.contract.columns import State
from timellm.contract.config import RunConfig
from timellm.contract.declarations import AtLeast, Shown
from timellm.contract.errors import InputError
from timellm.contract.flags import CommandOptions, add_flags
from timellm.machine.cores import Threads

PROG = "estimate_training_time.py"
DESCRIPTION = (
    "Times a few training and validation batches of a run and concludes what its epochs, the whole run and 1,000 "
    "iterations (training batches) take, with 95 % intervals. Nothing is kept of the steps it takes. Takes the flags "
    "of run_main.py. With --compare the settings are timed in turns, each in a process of its own while the others "
    "wait; all of them are in memory at the same time."
)
UNUSED = ("model_id", "des", "itr")
"""Flags of run_main.py that an estimate has no use for: read, and without effect."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement(CommandOptions):
    """How a run is estimated; the run itself is a `RunConfig`."""

    # Measurement
    measure_batches: Annotated[int, AtLeast(1), Shown("N")] = 100
    """Training batches to time."""
    warmup_batches: Annotated[int, AtLeast(0), Shown("N")] = 10
    """Training batches before them."""
    compare: Annotated[tuple[str, ...], Shown('"FLAGS"')] = ()
    """Also time the run with these flags changed, in turns with the first; may be repeated."""
    profile: bool = False
    """Also record some steps: shares, operations, a trace."""
    checkpoints: Annotated[str, Shown("DIR")] = "checkpoints"
    """Profiles go to its folder estimate."""
    num_threads: Threads = None
    """CPU threads."""
    json: bool = False
    """Print one JSON object and nothing else on stdout."""


def main() -> int:
    """Parse the flags, measure, print what a run takes."""
    from timellm.arguments import config_from, ignored_flags, launcher_notes

    parser, run_parser = _parsers()
    arguments = parser.parse_args(_joined(sys.argv[1:]))
    measurement, problems = _measurement(arguments)
    changes = vars(arguments).get("compare", [])
    texts = ["first", *changes]
    parsed = [arguments, *(_with_flags(run_parser, arguments, text) for text in changes)]
    if ignored := [*ignored_flags(arguments), *(f"--{name}" for name in UNUSED if name in vars(arguments))]:
        print(f"No effect on an estimate: {', '.join(ignored)}.", file=sys.stderr)
    for note in launcher_notes(arguments):
        print(note, file=sys.stderr)
    settings = []
    for text, namespace in zip(texts, parsed, strict=True):
        try:
            settings.append(config_from(namespace))
        except InputError as error:
            problems += _of_setting(text, error)
    if problems:
        raise InputError(problems)
    return _estimate(measurement, texts, settings)


def _parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """A parser of every flag, and one of those that `--compare` may change."""
    from timellm.arguments import build_parser

    run_parser, parser = build_parser(PROG, DESCRIPTION), build_parser(PROG, DESCRIPTION)
    add_flags(parser, Measurement)
    for name in UNUSED:
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser, run_parser


def _measurement(arguments: argparse.Namespace) -> tuple[Measurement, list[str]]:
    """How to measure, and what is wrong with what was asked; the defaults where something is."""
    from timellm.machine.process import world_size

    problems: list[str] = []
    try:
        measurement = Measurement.of(vars(arguments))
    except InputError as error:
        measurement, problems = Measurement(), list(error.problems)
    if (processes := world_size()) > 1:
        problems.append(
            f"An estimate measures a run of one process, got a launcher's {processes}. Start it with python."
        )
    return measurement, problems


def _joined(words: list[str]) -> list[str]:
    """Each --compare and its text as one word: argparse would take a text that is one flag as that flag."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] == "--compare":
            joined[-1] = f"--compare={word}"
        else:
            joined.append(word)
    return joined


def _with_flags(run_parser: argparse.ArgumentParser, arguments: argparse.Namespace, text: str) -> argparse.Namespace:
    """The flags of the command line, some of them changed."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"--compare must be flags as a shell reads them, got {text!r}: {error}.") from error
    if not words:
        raise InputError(f"--compare must change a flag at least, got {text!r}. Name one, as in '--precision bf16'.")
    try:
        return run_parser.parse_args(words, namespace=copy.copy(arguments))
    except InputError as error:
        raise InputError(f"--compare: {error}") from error


def _of_setting(text: str, error: InputError) -> list[str]:
    return [problem if text == "first" else f"--compare {text!r}: {problem}" for problem in error.problems]


def _estimate(measurement: Measurement, texts: list[str], settings: list[RunConfig]) -> int:
    from timellm.estimate.interleaved import measure_interleaved
    from timellm.estimate.measurement import MeasurePlan
    from timellm.estimate.projection import estimates
    from timellm.estimate.wording import print_comparison, print_estimate
    from timellm.machine.environment import describe_machine

    check_settings(texts, settings)
    profiles = Path(measurement.checkpoints).absolute() / "estimate" if measurement.profile else None
    plan = MeasurePlan.of(measurement.measure_batches, measurement.warmup_batches, settings, profiles)
    threads = measurement.num_threads or describe_machine()["cores"]
    measured = measure_interleaved(settings, plan, threads, lambda line: print(line, file=sys.stderr, flush=True))
    results = estimates(settings, measured)
    if measurement.json:
        first, *others = [{"setting": text, **result.to_dict()} for text, result in zip(texts, results, strict=True)]
        print(json.dumps({**first, "compare": others} if others else first, indent=2))
    elif len(results) > 1:
        print_comparison(texts, results)
    elif results[0].state == State.COMPLETE:
        print_estimate(settings[0], results[0])
    if not measurement.json:
        for number, part in enumerate(measured, 1):
            if profile := getattr(part, "profile", None):
                print("\n".join(["", *([f"setting {number}"] if len(measured) > 1 else []), *profile.lines()]))
    for text, result in zip(texts, results, strict=True):
        if result.error:
            where = f" ({text})" if len(results) > 1 else ""
            print(f"{PROG}: {result.state}{where}: {result.error}", file=sys.stderr)
    return 0 if any(result.state == State.COMPLETE for result in results) else 1


def check_settings(texts: list[str], settings: list[RunConfig]) -> None:
    """Hold every setting against the data, the language model and the device, and say what the first's prompts take."""
    from timellm.check import check_run

    problems: list[str] = []
    notes: list[str] = []
    for text, config in zip(texts, settings, strict=True):
        try:
            facts = check_run(config)
            notes += facts.get("prompts", {}).get("notes", ()) if text == texts[0] else ()
        except InputError as error:
            problems += _of_setting(text, error)
    if problems:
        raise InputError(problems)
    for note in notes:
        print(note, file=sys.stderr, flush=True)


def command() -> NoReturn:
    """The command `timellm-estimate`."""
    from timellm.machine.process import restart_with_environment

    restart_with_environment()
    from timellm.arguments import run_command

    run_command(main, PROG)


if __name__ == "__main__":
    command()
