"""Runs searches with the fake worker in processes of their own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
FAKE_WORKER = Path(__file__).with_name("fake_worker.py")
FORKING_FAKE = Path(__file__).with_name("forking_fake.py")

MARK = "SEARCH_UNDER_TEST"
"""Environment variable of every process of a search: its folder of runs."""

FACTS = tempfile.TemporaryDirectory(prefix="facts")
"""Facts of this machine that a search of these tests has found."""

_PROGRAM = f"""
import sys
import tests.search.kept_facts, tests.search.light_ray
from search.run import main
sys.exit(main(sys.argv[1:], (sys.executable, {str(FAKE_WORKER)!r})))
"""
_FORKING_PROGRAM = f"""
import sys
import tests.search.kept_facts, tests.search.light_ray
from search import session
from search.run import main
session.WORKER_COMMAND = (sys.executable, {str(FAKE_WORKER)!r})
session.SERVER_COMMAND = (sys.executable, {str(FORKING_FAKE)!r})
sys.exit(main(sys.argv[1:], session.WORKER_COMMAND))
"""


def start(
    runs: Path, *arguments: str, faults: dict | None = None, seconds: float = 0.2, is_forking: bool = False
) -> subprocess.Popen:
    """A search that has been started.

    Args:
        runs: Folder of runs.
        arguments: Further flags.
        faults: What goes wrong by "knob=value".
        seconds: Length of a training.
        is_forking: Whether a server forks the workers, as it does those of a real search.
    """
    environment = {
        **os.environ,
        "FAKE_SECONDS": str(seconds),
        "FAKE_FAULTS": json.dumps(faults or {}),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        MARK: str(runs),
        "KEPT_FACTS": FACTS.name,
    }
    program = _FORKING_PROGRAM if is_forking else _PROGRAM
    command = [sys.executable, "-c", program, "--space", "smoke", "--runs_dir", str(runs), "--no-dashboard"]
    if not {"--sampler", "--resume"} & set(arguments):
        command += ["--sampler", "random"]  # what a proposal costs is not what these searches are about
    return subprocess.Popen(
        [*command, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def search(runs: Path, *arguments: str, timeout: float = 300, **more) -> subprocess.CompletedProcess:
    """A search that has ended."""
    process = start(runs, *arguments, **more)
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        kill_tree(process.pid)
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def kill_tree(pid: int) -> None:
    """Kill a process and all that it started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)


def processes(runs: Path) -> Iterator[psutil.Process]:
    """Every process of the searches in a folder of runs that is alive, those of Ray included."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == str(runs) and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def ports(runs: Path) -> set[int]:
    """Ports that the processes of searches listen on."""
    found = set()
    for process in processes(runs):
        with contextlib.suppress(psutil.Error):
            listening = [one for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
            found |= {one.laddr.port for one in listening}
    return found


def workers(run: Path) -> Iterator[int]:
    """Process ids of the workers that are alive."""
    for events in sorted(run.glob("trials/*/events.jsonl")):
        lines = events.read_text().splitlines()
        if lines and psutil.pid_exists(pid := json.loads(lines[0])["pid"]):
            with contextlib.suppress(psutil.NoSuchProcess):
                if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                    yield pid
