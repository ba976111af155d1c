"""Lets optuna-dashboard read the study of a search from its start to its end, and looks at what the search leaves."""

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from benchmarks.record import Table, table
from results import RunFolder, load_trials
from tests.search.searching import kill_tree, start
from tests.waiting import wait_for
from timellm.contract.columns import Status

HEADING = "A second reader of the study"
NOTE = (
    "optuna-dashboard serves the study of a search of six trials, whose workers are played, and is asked for its page, "
    "its studies and their trials without a pause from the study's first second until the search has ended."
)
TRIALS = 6
_LIMIT_SECONDS = 300
_COMMAND = Path(sys.executable).with_name("optuna-dashboard")


@dataclass(frozen=True)
class Watched:
    """What became of a search whose study was read all the time.

    Attributes:
        status: Its exit status.
        requests: How many requests the dashboard answered.
        most_trials: The most trials that the dashboard showed.
        rows: Complete rows of the table.
        is_whole: Whether manifest and report are finished, and the report names every trial.
        errors: What the search printed on stderr.
    """

    status: int
    requests: int
    most_trials: int
    rows: int
    is_whole: bool
    errors: str


def watched_search(runs: Path, trials: int = TRIALS, seconds: float = 1.0) -> Watched:
    """Run a search while the dashboard reads its study.

    Args:
        runs: An empty folder.
        trials: How many it runs.
        seconds: Length of a training, s.
    """
    folder = RunFolder(runs / "read")
    limits = ("--fidelity", "64", "--num_trials", str(trials))
    process = start(runs, "--name", "read", *limits, seconds=seconds)
    dashboard = None
    requests, most_trials = 0, 0
    try:
        wait_for(lambda: folder.study.is_file() or process.poll() is not None)
        port = _free_port()
        words = [str(_COMMAND), f"sqlite:///{folder.study}", "--host", "127.0.0.1", "--port", str(port)]
        dashboard = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ends = time.monotonic() + _LIMIT_SECONDS
        while process.poll() is None and time.monotonic() < ends:
            shown = trials_shown(f"http://127.0.0.1:{port}")
            requests, most_trials = requests + (shown is not None), max(most_trials, shown or 0)
        _, errors = process.communicate(timeout=10)
    finally:
        kill_tree(process.pid)
        if dashboard is not None:
            kill_tree(dashboard.pid)
            dashboard.wait()
    names = list(load_trials(folder.path)["trial_id"])
    report = folder.report.read_text() if folder.report.is_file() else ""
    is_whole = folder.read_manifest().status == Status.FINISHED and all(name in report for name in names)
    complete = int((load_trials(folder.path)["state"] == "complete").sum())
    return Watched(process.returncode, requests, most_trials, complete, is_whole, errors)


def reader_table() -> Table:
    """How the search ended, as one row."""
    with tempfile.TemporaryDirectory() as name:
        watched = watched_search(Path(name))
    headings = ("read by", "requests answered", "trials shown", "status", "complete rows", "report and manifest whole")
    row = ("optuna-dashboard", watched.requests, watched.most_trials, watched.status)
    return table(headings, [(*row, f"{watched.rows} of {TRIALS}", "yes" if watched.is_whole else "no")])


def trials_shown(page: str) -> int | None:
    """Read everything that the dashboard shows; how many trials those are, or None while it does not answer."""
    with contextlib.suppress(OSError, ValueError, KeyError, urllib.error.URLError):
        urllib.request.urlopen(f"{page}/dashboard", timeout=30).close()
        studies = _json(f"{page}/api/studies")["study_summaries"]
        return sum(len(_json(f"{page}/api/studies/{study['study_id']}")["trials"]) for study in studies)
    time.sleep(0.1)
    return None


def _json(address: str) -> dict:
    with urllib.request.urlopen(address, timeout=30) as answer:
        content: dict = json.load(answer)
    return content


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port
