"""How long loading and reporting take for a table of many trials: `python benchmarks/report_size.py`.

Prints seconds per step and the report's size; exits with status 1 above the limit. The rows are made up.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from results.layout import RunFolder
from results.page import build_report
from results.pareto import add_scores
from results.table import load_trials, write_trials
from tests.results.synthetic import make_manifest, make_rows


def main() -> int:
    """Make the table, then time writing, loading and reporting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20_000, help="rows of the table (20000)")
    parser.add_argument("--limit", type=float, default=20.0, help="most seconds for loading and reporting (20)")
    options = parser.parse_args()
    rates = np.random.default_rng(0).uniform(1e-5, 1e-2, options.trials)
    rows = [{**row, "config/learning_rate": rates[i]} for i, row in enumerate(make_rows(options.trials))]
    with tempfile.TemporaryDirectory() as path:
        folder = RunFolder(Path(path) / "many")
        folder.write_manifest(make_manifest())
        seconds = {}
        for step, work in (
            ("score and write", lambda: write_trials(folder, add_scores(rows))),
            ("load", lambda: load_trials(folder.path)),
            ("report", lambda: build_report(folder)),
        ):
            start = time.perf_counter()
            work()
            seconds[step] = time.perf_counter() - start
            print(f"{step:16} {seconds[step]:6.2f} s")
        print(f"report.html      {folder.report.stat().st_size / 2**20:6.2f} MiB")
    total = seconds["load"] + seconds["report"]
    print(f"load and report  {total:6.2f} s for {options.trials:,} trials, limit {options.limit:g} s")
    return 0 if total < options.limit else 1


if __name__ == "__main__":
    sys.exit(main())
