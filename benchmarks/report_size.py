"""Loading and reporting a table of many trials."""

import argparse
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from benchmarks.document import conditions, device_heading
from benchmarks.harness import Interval, median_of, show_progress
from benchmarks.record import Section, table
from benchmarks.runner import Benchmark
from results.analysis.pareto import add_scores
from results.analysis.table import load_trials, write_trials
from results.document.page import build_report
from tests.results.synthetic import make_manifest, make_rows
from timellm.contract.columns import knob_column
from timellm.contract.flags import StrictParser
from timellm.contract.layout import RunFolder

TRIALS, LIMIT = 20_000, 20.0
INTRODUCTION = """# Report size

How long `results.load_trials` and `results.build_report` take for a table of many trials, and how large the report is.
The rows are made up, with planted effects, failures and a continuous knob; the files are real. Medians of the
repeats, with their 95 % interval; the steps follow each other in one process. Ended with status 1 above the limit."""
LIBRARIES = ("pandas", "pyarrow", "optuna", "moocore", "plotly")


class ReportSize(Benchmark):
    """Times loading and reporting a table of many trials."""

    name = "report_size"
    title = "Times loading and reporting a table of many trials."
    introduction = INTRODUCTION

    _medians: dict[str, Interval]
    _limit: float

    def parser(self) -> argparse.ArgumentParser:
        """Its flags."""
        parser = StrictParser(prog=f"benchmarks {self.name}", description=self.title)
        parser.add_argument("--trials", type=int, default=TRIALS, help=f"rows of the table ({TRIALS})")
        parser.add_argument("--limit", type=float, default=LIMIT, help=f"most seconds of both steps ({LIMIT:g})")
        parser.add_argument("--repeats", type=int, default=3, help="measurements of each step (3)")
        return parser

    def measure(self, arguments: argparse.Namespace) -> list[Section]:
        """The section of this device and model."""
        readings: dict[str, list[float]] = {}
        for repeat in range(arguments.repeats):
            seconds, mebibytes = measure_once(arguments.trials)
            for step, value in seconds.items():
                readings.setdefault(step, []).append(value)
            show_progress(f"repeat {repeat + 1} of {arguments.repeats}: {seconds['load and report']:.1f} s")
        self._medians = {step: median_of(values) for step, values in readings.items()}
        self._limit = arguments.limit
        device = torch.device("cpu")
        notes = conditions(
            device,
            f"Timed libraries: {', '.join(f'{name} {version(name)}' for name in LIBRARIES)}",
            f"Table: {arguments.trials:,} trials; limit for loading and reporting {arguments.limit:g} s",
            f"report.html: {mebibytes:.1f} MiB",
        )
        rows = table(("step", "seconds"), [(step, f"{median:.2f}") for step, median in self._medians.items()])
        return [Section(device_heading(device, f"{arguments.trials:,} trials"), (notes, rows))]

    def status(self) -> int:
        """1 above the limit."""
        return 0 if self._medians["load and report"].median < self._limit else 1


def measure_once(trials: int) -> tuple[dict[str, float], float]:
    """Write, load and report a table once.

    Args:
        trials: Its rows.

    Returns:
        Seconds of each step, and the size of the report in MiB.
    """
    rates = np.random.default_rng(0).uniform(1e-5, 1e-2, trials)
    rows = [{**row, knob_column("learning_rate"): rate} for row, rate in zip(make_rows(trials), rates, strict=True)]
    seconds: dict[str, float] = {}

    def timed(step: str, work: Callable[[], object]) -> None:
        start = time.perf_counter()
        work()
        seconds[step] = time.perf_counter() - start

    with tempfile.TemporaryDirectory() as path:
        folder = RunFolder(Path(path) / "many")
        folder.write_manifest(make_manifest())
        timed("score and write", lambda: write_trials(folder, add_scores(rows)))
        timed("load", lambda: load_trials(folder.path))
        timed("report", lambda: build_report(folder))
        mebibytes = folder.report.stat().st_size / 2**20
    return {**seconds, "load and report": seconds["load"] + seconds["report"]}, mebibytes
