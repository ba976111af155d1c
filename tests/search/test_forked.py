"""Workers forked by a server: a fake one, and the real one once."""

import os
import sys

import psutil
import pytest

from search.tune.forked import SERVER_COMMAND, ForkServers
from search.tune.worker_process import WorkerProcess, WorkerSettings
from tests.search.searching import FAKE_WORKER, ROOT
from tests.timellm.tiny_runs import tiny_config
from tests.waiting import wait_for
from timellm.contract.config import RunConfig
from timellm.contract.job import Job
from timellm.contract.layout import TrialFolder
from timellm.machine import contention

SERVER = (sys.executable, str(FAKE_WORKER.with_name("forking_fake.py")))
CONFIG = RunConfig(batch_size=8, llm_layers=2).to_dict()


@pytest.fixture(autouse=True)
def servers(monkeypatch):
    found = ForkServers()
    monkeypatch.setattr("search.tune.worker_process.SERVERS", found)
    yield found
    found.close()


def start(folder, seconds=0.0, *, server=SERVER, faults="{}", **environment) -> WorkerProcess:
    settings = WorkerSettings(
        command=(sys.executable, str(FAKE_WORKER)),
        project_root=str(ROOT),
        environment={"FAKE_SECONDS": str(seconds), "FAKE_FAULTS": faults, **environment},
        server=server,
    )
    return WorkerProcess(settings, Job(config=CONFIG, run_dir=str(folder), threads=1))


def outcome_of(worker) -> dict:
    wait_for(lambda: (worker.new_events(), not worker.is_running())[1], 60)
    return worker.outcome()


def parent_of(worker) -> psutil.Process:
    return psutil.Process(worker.pid).parent()


def is_gone(pid) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_forked_worker_leaves_what_a_started_one_leaves(tmp_path):
    forked, started = (start(tmp_path / n, server=s, OMP_NUM_THREADS="3") for n, s in (("f", SERVER), ("s", None)))
    times = ("started_at", "total_seconds")
    assert {k: v for k, v in outcome_of(forked).items() if k not in times} == {
        k: v for k, v in outcome_of(started).items() if k not in times
    }
    for name in ("run.log", "events.jsonl"):
        assert (tmp_path / "f" / name).is_file()
    assert (tmp_path / "f/run.log").read_text() == (tmp_path / "s/run.log").read_text()
    assert "threads 3" in (tmp_path / "f/run.log").read_text()


def test_workers_of_one_environment_have_one_server_and_groups_of_their_own(tmp_path):
    first, second = start(tmp_path / "1", 600), start(tmp_path / "2", 600)
    assert parent_of(first) == parent_of(second) != psutil.Process()
    assert [os.getsid(worker.pid) for worker in (first, second)] == [first.pid, second.pid]
    other = start(tmp_path / "3", 601)
    assert parent_of(other) != parent_of(first)
    for worker in (first, second, other):
        worker.kill("Enough.")
        assert outcome_of(worker)["state"] == "interrupted"


def test_a_forked_worker_ends_in_good_order_when_it_is_told_to(tmp_path):
    worker = start(tmp_path / "1", 600)
    wait_for(lambda: TrialFolder(tmp_path / "1").events.is_file())
    worker.interrupt("Enough.")
    assert (outcome_of(worker)["state"], outcome_of(worker)["error"]) == ("interrupted", "Enough.")


def test_a_killed_worker_is_told_from_one_that_ended(tmp_path):
    worker = start(tmp_path / "1", faults='{"batch_size=8": "sigkill"}')
    assert "The worker was killed by SIGKILL from outside" in outcome_of(worker)["error"]
    assert outcome_of(start(tmp_path / "2"))["state"] == "complete"


def test_a_killed_server_costs_its_worker_and_no_later_one(tmp_path):
    worker = start(tmp_path / "1", 600)
    parent_of(worker).kill()
    assert "The worker was killed by SIGKILL from outside" in outcome_of(worker)["error"]
    wait_for(lambda: is_gone(worker.pid))
    again = start(tmp_path / "2", 600)
    assert parent_of(again) != psutil.Process()
    again.kill("Enough.")


def test_a_server_goes_with_the_process_that_asked(tmp_path, servers):
    worker = start(tmp_path / "1", 600)
    server = parent_of(worker).pid
    servers.close()
    wait_for(lambda: is_gone(server) and is_gone(worker.pid))


@pytest.mark.parametrize("server", [(*SERVER, "thread"), (sys.executable, "-c", "1"), ("/nowhere/python",)])
def test_without_a_server_that_can_fork_workers_are_started(tmp_path, server):
    worker = start(tmp_path / "1", 600, server=server)
    assert parent_of(worker) == psutil.Process()
    worker.kill("Enough.")
    assert outcome_of(start(tmp_path / "2", server=server))["state"] == "complete"


def test_the_real_server_imports_in_one_thread_and_its_worker_measures_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(contention, "busy_seconds", lambda: 0.0)  # nobody else uses the cores
    config = tiny_config(tmp_path, train_samples=16).to_dict()
    errors = {}
    for name, server in (("forked", SERVER_COMMAND), ("started", None)):
        settings = WorkerSettings(project_root=str(ROOT), environment={"OMP_NUM_THREADS": "1"}, server=server)
        worker = WorkerProcess(settings, Job(config=config, run_dir=str(tmp_path / name), threads=1))
        assert (parent_of(worker) == psutil.Process()) == (name == "started")
        outcome = outcome_of(worker)
        assert outcome["state"] == "complete", (tmp_path / name / "run.log").read_text()
        errors[name] = outcome
    assert errors["forked"]["val_mse"] == errors["started"]["val_mse"]
    assert [one["timing_quality"] for one in errors.values()] == ["clean", "clean"]
    assert errors["forked"]["peak_memory_gib"] == pytest.approx(errors["started"]["peak_memory_gib"], rel=0.1)
