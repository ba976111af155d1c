"""Loading and reporting a table of many trials. `report_size.py --help`."""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

PROG = "report_size.py"
NAME = "report_size"
TRIALS, LIMIT = 20_000, 20.0
INTRODUCTION = """# Report size

How long `results.load_trials` and `results.build_report` take for a table of many trials, and how large the report is.
The rows are made up, with planted effects, failures and a continuous knob; the files are real. Medians of the
repeats, with their 95 % interval; the steps follow each other in one process. Ended with status 1 above the limit."""


def main() -> int:
    """Make the table, time writing, loading and reporting, and write the section of this machine."""
    from benchmarks.harness import median_of, show_progress

    parser = argparse.ArgumentParser(prog=PROG, description=__doc__)
    parser.add_argument("--trials", type=int, default=TRIALS, help=f"rows of the table ({TRIALS})")
    parser.add_argument("--limit", type=float, default=LIMIT, help=f"most seconds of both steps ({LIMIT:g})")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each step (3)")
    parser.add_argument("--output", default=None, help="Markdown file (default: the one beside the command)")
    options = parser.parse_args()
    readings: dict[str, list[float]] = {}
    for repeat in range(options.repeats):
        seconds, mebibytes = measure(options.trials)
        for step, value in seconds.items():
            readings.setdefault(step, []).append(value)
        show_progress(f"repeat {repeat + 1} of {options.repeats}: {seconds['load and report']:.1f} s")
    medians = {step: median_of(values) for step, values in readings.items()}
    _publish(options, [(step, f"{median:.2f}") for step, median in medians.items()], mebibytes)
    return 0 if medians["load and report"].median < options.limit else 1


def measure(trials: int) -> tuple[dict[str, float], float]:
    """Write, load and report a table once.

    Args:
        trials: Its rows.

    Returns:
        Seconds of each step, and the size of the report in MiB.
    """
    import numpy as np

    from results.analysis.pareto import add_scores
    from results.analysis.table import load_trials, write_trials
    from results.document.page import build_report
    from tests.results.synthetic import make_manifest, make_rows
    from timellm.contract.layout import RunFolder

    rates = np.random.default_rng(0).uniform(1e-5, 1e-2, trials)
    rows = [{**row, "config/learning_rate": rate} for row, rate in zip(make_rows(trials), rates, strict=True)]
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


def _publish(options: argparse.Namespace, rows: list[tuple[str, str]], mebibytes: float) -> None:
    from importlib.metadata import version

    import torch

    from benchmarks.document import conditions, device_heading, publish, table

    device = torch.device("cpu")
    used = ", ".join(f"{name} {version(name)}" for name in ("pandas", "pyarrow", "optuna", "moocore", "plotly"))
    notes = conditions(
        device,
        f"Timed libraries: {used}",
        f"Table: {options.trials:,} trials; limit for loading and reporting {options.limit:g} s",
        f"report.html: {mebibytes:.1f} MiB",
    )
    body = "\n\n".join([notes, table(("step", "seconds"), rows)])
    heading = device_heading(device, f"{options.trials:,} trials")
    publish(NAME, options.output, INTRODUCTION, heading, body, gpu_command=None)


if __name__ == "__main__":
    sys.exit(main())
