import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from search.tune import worker_process
from search.tune.trainable import ask_to_stop, follow
from search.tune.worker_process import WorkerProcess, WorkerSettings
from tests.search.searching import FAKE_WORKER, ROOT
from tests.waiting import wait_for
from timellm.contract.config import RunConfig
from timellm.contract.job import BAD_INPUT, Job
from timellm.contract.layout import TrialFolder

CONFIG = RunConfig(batch_size=8, llm_layers=2).to_dict()


def start(folder, **more) -> WorkerProcess:
    return WorkerProcess(settings(**more), job(folder))


def job(folder, **more) -> Job:
    return Job(config=CONFIG, run_dir=str(folder.path), threads=1, **more)


@pytest.fixture
def folder(tmp_path):
    return TrialFolder(tmp_path / "t0001")


def settings(**more) -> WorkerSettings:
    return WorkerSettings(**{"command": (sys.executable, str(FAKE_WORKER)), "project_root": str(ROOT), **more})


def test_a_worker_is_followed_to_its_result(folder, monkeypatch):
    monkeypatch.setenv("FAKE_SECONDS", "0.1")
    worker = WorkerProcess(settings(environment={"OMP_NUM_THREADS": "3"}), job(folder, rungs=(32,)))
    events = []
    while (event := follow(worker, folder, None)) is not None:
        events.append(event)
    outcome = worker.outcome()
    assert events[0]["samples"] == 32
    assert outcome["state"] == "complete"
    assert outcome["timing_quality"] in ("clean", "contended")
    assert "threads 3" in folder.log.read_text()


@pytest.mark.parametrize(("fault", "is_bad_input"), [("bad input", True), ("crash", None), ("diverged", None)])
def test_a_worker_that_refused_its_input_says_so(folder, monkeypatch, fault, is_bad_input):
    monkeypatch.setenv("FAKE_FAULTS", json.dumps({"batch_size=8": fault}))
    outcome = start(folder).outcome()
    assert outcome["state"] in ("failed", "diverged")
    assert outcome.get(BAD_INPUT) is is_bad_input


def test_files_of_an_earlier_attempt_do_not_count(folder, monkeypatch):
    folder.path.mkdir()
    folder.result.write_text(json.dumps({"state": "complete", "val_mse": 1.0}))
    folder.events.write_text('{"event": "validation", "val_mse": 1.0}\n')
    monkeypatch.setenv("FAKE_FAULTS", '{"batch_size=8": "sigkill"}')
    worker = start(folder)
    assert follow(worker, folder, None) is None
    assert worker.outcome()["state"] == "failed"


def test_a_worker_told_to_stop_ends_in_good_order_with_the_reason(folder, monkeypatch):
    monkeypatch.setenv("FAKE_SECONDS", "60")
    worker = start(folder)
    wait_for(lambda: folder.events.is_file() and "training" in folder.events.read_text())
    ask_to_stop(folder.path, "Enough.")
    assert follow(worker, folder, None) is None
    outcome = worker.outcome()
    assert (outcome["state"], outcome["error"]) == ("interrupted", "Enough.")


def test_a_worker_past_its_time_is_told_to_stop(folder, monkeypatch):
    monkeypatch.setenv("FAKE_SECONDS", "60")
    worker = start(folder)
    wait_for(lambda: folder.events.is_file() and "training" in folder.events.read_text())
    assert follow(worker, folder, time.time()) is None
    assert "time budget was over" in worker.outcome()["error"]


@pytest.mark.parametrize("now", [False, True])
def test_a_worker_that_does_not_listen_is_killed(folder, monkeypatch, now):
    monkeypatch.setattr(worker_process, "SECONDS_TO_STOP", 0.5)
    monkeypatch.setenv("FAKE_FAULTS", '{"batch_size=8": "hang"}')
    worker = start(folder)
    wait_for(lambda: folder.events.is_file() and "training" in folder.events.read_text())
    ask_to_stop(folder.path, "Enough.", now=now)
    assert follow(worker, folder, None) is None
    assert worker.outcome()["state"] == "interrupted"
    assert not psutil.pid_exists(worker.pid)


def test_a_hung_worker_has_failed(folder, monkeypatch):
    monkeypatch.setenv("FAKE_FAULTS", '{"batch_size=8": "hang"}')
    worker = start(folder, trial_timeout=0.5)
    assert follow(worker, folder, None) is None
    outcome = worker.outcome()
    assert outcome["state"] == "failed"
    assert "limit of --trial_timeout" in outcome["error"]


def test_the_kernel_ending_a_worker_for_memory_is_out_of_memory(folder, monkeypatch):
    kills = iter([3, 4])
    monkeypatch.setattr(worker_process, "oom_kills", lambda: next(kills))
    monkeypatch.setenv("FAKE_FAULTS", '{"batch_size=8": "sigkill"}')
    worker = start(folder)
    assert follow(worker, folder, None) is None
    outcome = worker.outcome()
    assert outcome["state"] == "out_of_memory"
    assert "machine ran out of memory" in outcome["error"]


def test_a_worker_dies_with_the_process_that_started_it(folder, tmp_path):
    program = f"""
import os, sys, time
from tests.search.test_worker_process import TrialFolder, start
from pathlib import Path
worker = start(TrialFolder(Path({str(folder.path)!r})))
print(worker.pid, flush=True)
time.sleep(60)
"""
    environment = {**os.environ, "FAKE_SECONDS": "60", "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
    pid = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, 20)


def test_a_program_that_is_not_there_is_an_os_error(folder):
    with pytest.raises(OSError, match="No such file"):
        start(folder, command=("/nowhere/python",))
