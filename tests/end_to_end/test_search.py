"""One real search: real Ray with its dashboard, real Optuna storage, SmolLM2's weights and the weather of New York."""

import contextlib
import json
import os
import re
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from tensorboardX.proto.event_pb2 import Event

from results import RunFolder, load_trials
from tests.search.searching import ROOT, kill_tree

TRIALS = 4


def get(url: str) -> tuple[int, str]:
    """Status and text of a page of Ray's dashboard."""
    token = Path.home() / ".ray" / "auth_token"
    headers = {"Authorization": f"Bearer {token.read_text().strip()}"} if token.is_file() else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        return answer.status, answer.read().decode()


def scalars(records: bytes) -> Iterator[str]:
    """Names of the scalars in a TensorBoard log: records of length, checksum, event, checksum."""
    start = 0
    while start < len(records):
        (length,) = struct.unpack_from("<Q", records, start)
        event = Event.FromString(records[start + 12 : start + 12 + length])
        yield from (value.tag for value in event.summary.value)
        start += 12 + length + 4


def watch_dashboard(process: subprocess.Popen, log: Path, seen: dict) -> None:
    """Ask the dashboard until it shows the process that a trial runs in, or the search ends."""
    ends = time.time() + 240
    while process.poll() is None and time.time() < ends and "actors" not in seen:
        time.sleep(1)
        found = re.search(r"Ray dashboard: (http://127\.0\.0\.1:\d+)", log.read_text())
        if not found:
            continue
        with contextlib.suppress(OSError):
            seen["page"] = get(found[1])
            status, actors = get(f"{found[1]}/logical/actors")
            if status == 200 and "WorkerTrainable" in actors:
                seen["actors"] = json.loads(actors)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    log = folder / "log"
    command = [sys.executable, str(ROOT / "search" / "run.py"), "--space", "smoke", "--name", "real"]
    command += ["--num_trials", str(TRIALS), "--runs_dir", "runs"]
    seen: dict = {}
    with log.open("w") as file:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            watch_dashboard(process, log, seen)
            process.wait(timeout=600)
        finally:
            kill_tree(process.pid)
    return process.returncode, log.read_text(), RunFolder(folder / "runs" / "real"), seen


def test_real_trials_are_completed_and_recommended(searched):
    status, log, folder, _ = searched
    assert status == 0, log
    trials = load_trials(folder.path)
    assert len(trials) == TRIALS
    assert set(trials["state"]) == {"complete"}, log
    assert (trials["val_mse"] > 0).all()
    assert (trials["seconds_per_epoch_low"] <= trials["seconds_per_epoch"]).all()
    assert trials["is_projected"].all()
    assert set(trials["train_samples"]) == {32}
    assert (trials["startup_seconds"] > 0).all()
    assert "Pareto front" in log
    assert "Traceback" not in log
    assert folder.report.is_file()
    assert "timellm/run_main.py" in folder.recommended_command.read_text()


def test_the_dashboard_answers_and_shows_the_process_of_a_trial(searched):
    _, log, _, seen = searched
    assert seen.get("page", (0, ""))[0] == 200, log
    assert "WorkerTrainable" in json.dumps(seen["actors"])


def test_the_study_and_the_logs_open_in_their_own_tools(searched):
    _, log, folder, _ = searched
    study = optuna.load_study(study_name="real", storage=f"sqlite:///{folder.study}")
    assert len(study.best_trials) >= 1, log
    logs = next(folder.ray.glob("*/t0001/events.out.tfevents*"))
    assert "ray/tune/val_mse" in set(scalars(logs.read_bytes()))
