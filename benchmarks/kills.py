"""Kills one process of a search after another, and counts what was lost."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from benchmarks.record import Table, table
from results import RunFolder, load_trials
from tests.search.searching import kill_tree, processes, search, start, workers
from tests.waiting import wait_for
from timellm.contract.columns import State

HEADING = "Killed processes"
NOTE = (
    "A search of four trials, whose workers are played, loses the named process by SIGKILL while its second trial "
    "runs, and goes on with `--resume` if it ended. Rows lost are complete trials that are not there any more, or had "
    "to be run again. The trial in flight is run again where the search ended, and a failed row where it went on."
)
TRIALS = 4
VICTIMS = ("raylet", "gcs_server", "actor", "fork server", "worker", "driver")
"""What is killed: two processes of Ray's, the one that watches the worker, the server that forked it, the worker,
and the search."""
_LIMIT_SECONDS = 150
_ACTOR = "ray::WorkerTrainable"


def kill_table(victims: Sequence[str] = VICTIMS) -> Table:
    """What each kill left, as rows.

    Args:
        victims: Which of the `VICTIMS`.
    """
    headings = ("killed", "status", "seconds to the end", "trial in flight", "rows lost", "complete after --resume")
    return table(headings, [_row(victim) for victim in victims])


def _row(victim: str) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory() as name:
        folder = RunFolder(Path(name) / "kill")
        limits = ("--fidelity", "64", "--num_trials", str(TRIALS))
        process = start(Path(name), "--name", "kill", *limits, seconds=3, is_forking=True)
        try:
            wait_for(lambda: folder.trial("t0002").events.is_file() and list(workers(folder.path)))
            before = _complete(folder)
            for pid in list(pids(victim, process.pid, folder)):
                psutil.Process(pid).kill()
            began = time.monotonic()
            process.communicate(timeout=_LIMIT_SECONDS)
            seconds = time.monotonic() - began
        finally:
            kill_tree(process.pid)
            process.wait()
        wait_for(lambda: not list(workers(folder.path)), 30)
        states = dict(load_trials(folder.path).set_index("trial_id")["state"].astype(str))
        kept = _complete(folder)
        if process.returncode:
            search(Path(name), "--resume", "kill", seconds=0.05)
        lost = sum(kept.get(trial) != seen for trial, seen in before.items())
        after = _complete(folder)
        lost += sum(after.get(trial) != seen for trial, seen in kept.items() if trial not in before)
    return (
        victim,
        str(process.returncode),
        f"{seconds:.0f}",
        states.get("t0002", "no row yet"),
        str(lost),
        f"{len(after)} of {len(states) if not process.returncode else TRIALS}",
    )


def _complete(folder: RunFolder) -> dict[str, str]:
    """When each complete trial began."""
    rows = load_trials(folder.path)
    complete = rows[rows["state"] == State.COMPLETE]
    return dict(zip(complete["trial_id"], complete["started_at"].astype(str), strict=True))


def pids(victim: str, driver: int, folder: RunFolder) -> Iterator[int]:
    """The processes to kill."""
    if victim == "driver":
        yield driver
    elif victim == "worker":
        yield from workers(folder.path)
    elif victim == "fork server":
        yield from {psutil.Process(pid).ppid() for pid in workers(folder.path)}
    else:
        for one in processes(folder.path.parent):
            title = next(iter(one.cmdline()), "")
            if one.name() == victim or (victim == "actor" and title.startswith(_ACTOR)):
                yield one.pid
