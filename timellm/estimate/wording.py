"""Prints estimates for people."""

import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from timellm.contract.columns import State
from timellm.contract.config import RunConfig
from timellm.contract.words import duration_words
from timellm.estimate.projection import TrainingEstimate

LEAST_WIDTH = 110
"""Columns of the output where there is no terminal to ask."""


def print_estimate(config: RunConfig, result: TrainingEstimate) -> None:
    """Print what one run takes."""
    console = _console()
    table = Table(box=None, pad_edge=False)
    for title in ("", "seconds", "95 % interval", ""):
        table.add_column(title, justify="left" if title == "" else "right", no_wrap=True)
    tested = ", test" if config.train_samples is None else ""
    validations = _counted(result.validations_per_run, "validation")
    rows = {
        f"batch of {config.batch_size} windows": "seconds_per_batch",
        f"epoch of {result.batches_per_epoch:,} batches, training alone": "seconds_per_epoch",
        f"epoch with its share of validation (every {config.validate_every})": "seconds_per_epoch_with_validation",
        "epoch with whole validation and test passes": "seconds_per_epoch_with_validation_and_test",
        f"run of {result.steps_per_run:,} steps, {validations}{tested}": "seconds_per_run",
        "1,000 iterations (batches)": "seconds_per_1000_iterations",
        "10,000 iterations": "seconds_per_10000_iterations",
    }
    for title, name in rows.items():
        mean, low, high = _interval(result, name)
        table.add_row(title, seconds_text(mean), _range_text(low, high), duration_words(mean) if mean >= 60 else "")
    console.print(table)
    for line in _facts(config, result):
        console.print(Text(line), soft_wrap=True)


def print_comparison(texts: list[str], results: list[TrainingEstimate]) -> None:
    """Print several settings, one a row, against the first.

    Args:
        texts: What each setting is called.
        results: Their estimates.
    """
    console = _console()
    table = Table(box=None, pad_edge=False)
    titles = ("", "s/batch", "s/epoch", "95 %", "+ validation", "+ test", "s/run", "GiB", "speed-up", "95 %")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for number, (text, result) in enumerate(zip(texts, results, strict=True), 1):
        console.print(Text(f"{number}  {text}"), soft_wrap=True)
        table.add_row(str(number), *(_cells(result) if result.state == State.COMPLETE else [result.state]))
    console.print(table)
    notes = dict.fromkeys(note for result in results for note in result.notes)
    backbones = dict.fromkeys(result.backbone for result in results if result.backbone)
    for line in (", ".join(filter(None, backbones)), *notes):
        console.print(Text(line), soft_wrap=True)


def seconds_text(seconds: float) -> str:
    """Seconds with three or four figures."""
    digits = 4 if seconds < 1 else 3 if seconds < 10 else 1 if seconds < 1000 else 0
    return f"{seconds:,.{digits}f}"


def _cells(result: TrainingEstimate) -> list[str]:
    mean, low, high = _interval(result, "seconds_per_epoch")
    cells = [seconds_text(_interval(result, "seconds_per_batch")[0]), seconds_text(mean), _range_text(low, high)]
    for name in ("epoch_with_validation", "epoch_with_validation_and_test", "run"):
        cells.append(seconds_text(_interval(result, f"seconds_per_{name}")[0]))
    cells.append(f"{result.peak_memory_gib:.2f}")
    if result.speedup_vs_first is None or result.speedup_vs_first_low == 1 == result.speedup_vs_first_high:
        return cells
    ratio, low, high = _interval(result, "speedup_vs_first")
    return [*cells, f"{ratio:.2f}x", f"{low:.2f} to {high:.2f}" if high is not None else f"from {low:.2f}"]


def _facts(config: RunConfig, result: TrainingEstimate) -> list[str]:
    compiled = f", compilation {result.compile_seconds:.1f} s" if result.compile_seconds else ""
    return [
        f"global batch {config.global_batch} = {config.batch_size} x {config.accumulation_steps}; "
        f"{result.timed_steps} steps timed; start-up {result.startup_seconds:.1f} s{compiled} on top of a run",
        f"peak {result.peak_memory_gib:.2f} GiB on {result.device}, {result.trainable_parameters:,} of "
        f"{result.total_parameters:,} parameters trained, {result.backbone}",
        *result.notes,
    ]


def _interval(result: TrainingEstimate, name: str) -> tuple[float, float, float | None]:
    return getattr(result, name), getattr(result, f"{name}_low"), getattr(result, f"{name}_high")


def _range_text(low: float, high: float | None) -> str:
    return f"{seconds_text(low)} to {seconds_text(high)}" if high is not None else "not known"


def _counted(count: int | None, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _console() -> Console:
    console = Console(file=sys.stdout, highlight=False)
    return console if console.is_terminal else Console(file=sys.stdout, highlight=False, width=LEAST_WIDTH)
