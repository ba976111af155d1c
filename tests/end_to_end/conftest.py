"""The one real search that the end-to-end tests look at."""

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from results import RunFolder
from tests.search.searching import ROOT, kill_tree

TRIALS = 4


@dataclass
class Searched:
    """A search that has ended.

    Attributes:
        status: Its exit status.
        log: What it printed.
        folder: Its run folder.
        page: Status and text of the dashboard's first page.
        actors: What the dashboard said while a trial ran.
        reports: Trials that the report counted while the search ran.
    """

    status: int | None
    log: str
    folder: RunFolder
    page: tuple[int, str] = (0, "")
    actors: Any = None
    reports: set[int] = field(default_factory=set)


def first_command() -> list[str]:
    """The search command that opens the README, on the smoke space."""
    command = re.search(r"^python3 -m venv .* && python (search/run\.py .*)$", (ROOT / "README.md").read_text(), re.M)
    assert command is not None
    script, *flags = shlex.split(command[1].replace("--space speed", "--space smoke"))
    assert "smoke" in flags
    return [sys.executable, str(ROOT / script), *flags]


def get(url: str) -> tuple[int, str]:
    """Status and text of a page of Ray's dashboard."""
    token = Path.home() / ".ray" / "auth_token"
    headers = {"Authorization": f"Bearer {token.read_text().strip()}"} if token.is_file() else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        return answer.status, answer.read().decode()


def watch(process: subprocess.Popen, log: Path, seen: Searched) -> None:
    """Look at the report and the dashboard, until the dashboard has shown the process that a trial runs in."""
    ends = time.time() + 800
    while process.poll() is None and time.time() < ends:
        time.sleep(1)
        with contextlib.suppress(OSError):
            running = re.search(r"The search is running: (\d+) trial", seen.folder.report.read_text())
            seen.reports |= {int(running[1])} if running else set()
        found = re.search(r"Ray dashboard: (http://127\.0\.0\.1:\d+)", log.read_text())
        if not found or seen.actors is not None:
            continue
        with contextlib.suppress(OSError):
            seen.page = get(found[1])
            status, actors = get(f"{found[1]}/logical/actors")
            if status == 200 and "WorkerTrainable" in actors:
                seen.actors = json.loads(actors)


@pytest.fixture(scope="session")
def searched(tmp_path_factory) -> Searched:
    folder = tmp_path_factory.mktemp("real")
    log = folder / "log"
    command = [*first_command(), "--name", "real", "--num_trials", str(TRIALS), "--runs_dir", "runs"]
    seen = Searched(None, "", RunFolder(folder / "runs" / "real"))
    with log.open("w") as file:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            watch(process, log, seen)
        finally:
            kill_tree(process.pid)
    seen.status, seen.log = process.wait(timeout=10), log.read_text()
    return seen
