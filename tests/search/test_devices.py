"""Trials on several devices: real Ray and real Ray Train start the processes, which a fake worker stands in for."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from results import load_trials
from search.run import main
from search.setup.resources import plan_resources, share_cluster
from search.tune.train_launcher import conclude
from search.tune.worker_process import WorkerProcess, WorkerSettings
from spaces import InputError
from tests.cores import CORES
from tests.search.searching import FAKE_WORKER, ROOT, kill_tree, search
from tests.timellm.tiny_runs import tiny_config
from tests.waiting import wait_for
from timellm.contract.config import RunConfig
from timellm.contract.job import Job, Launch
from timellm.contract.layout import TrialFolder

CONFIG = RunConfig(batch_size=8, llm_layers=2).to_dict()

RAY = """
import json, os, time
from search.tune.cluster import set_environment, start_ray
set_environment()
import ray
start_ray(cores=2, gpus=0, address=None, dashboard=False)
names = ("RAY_AUTH_MODE", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")
inherited = json.dumps({name: os.environ[name] for name in names if name in os.environ})
print("address", ray.get_runtime_context().gcs_address, inherited, flush=True)
time.sleep(1800)
"""


@pytest.fixture(scope="module")
def address():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", RAY], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        _, address, inherited = next(line for line in process.stdout if line.startswith("address")).split(maxsplit=2)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in json.loads(inherited).items():  # as processes that Ray itself has started have them
                patch.setenv(name, value)
            yield address
    finally:
        kill_tree(process.pid)
        process.wait()


def start(folder, address, seconds, devices=2) -> WorkerProcess:
    settings = WorkerSettings(
        command=(sys.executable, str(FAKE_WORKER)),
        project_root=str(ROOT),
        environment={"FAKE_SECONDS": str(seconds), "OMP_NUM_THREADS": "1"},
    )
    launch = Launch(devices=devices, resources={"CPU": 1}, address=address)
    return WorkerProcess(settings, Job(config=CONFIG, run_dir=str(folder), threads=1, launch=launch))


def pid_of(folder, rank) -> int | None:
    """Process id of one of a trial's processes, once it trains."""
    events = TrialFolder(folder).rank(rank).events
    lines = events.read_text().splitlines() if events.is_file() else []
    return json.loads(lines[0])["pid"] if any('"training"' in line for line in lines) else None


def is_gone(pid) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_until_both_train(folder) -> list[int]:
    wait_for(lambda: all(pid_of(folder, rank) for rank in range(2)), 240)
    return [pid_of(folder, rank) for rank in range(2)]


def outcome_of(worker) -> dict:
    wait_for(lambda: not worker.is_running(), 240)
    return worker.outcome()


def test_a_trial_on_two_devices_has_one_outcome_and_leaves_only_its_files(tmp_path, address):
    outcome = outcome_of(start(tmp_path / "t", address, 0.2))
    assert outcome["state"] == "complete", (tmp_path / "t/run.log").read_text()
    assert outcome["val_mse"] > 0
    assert outcome["timing_quality"] in ("clean", "contended")
    assert {"ended_at", "rank", "has_result"}.isdisjoint(outcome)
    found = sorted(path.name for path in (tmp_path / "t").iterdir())
    assert found == ["events.jsonl", "job.json", "rank1", "result.json", "run.log"]
    assert TrialFolder(tmp_path / "t").rank(1).result.is_file()


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_killed_process_fails_the_trial_and_ends_the_other(tmp_path, address, rank):
    worker = start(tmp_path / "t", address, 600)
    pids = wait_until_both_train(tmp_path / "t")
    os.kill(pids[rank], signal.SIGKILL)
    outcome = outcome_of(worker)
    assert outcome["state"] == "failed"
    assert "The worker was killed by SIGKILL from outside" in outcome["error"]
    assert outcome["error"].startswith("Process 2 of 2: ") == bool(rank)
    wait_for(lambda: all(map(is_gone, pids)), 60)


@pytest.mark.slow
def test_a_trial_told_to_stop_ends_in_good_order_on_every_device(tmp_path, address):
    worker = start(tmp_path / "t", address, 600)
    pids = wait_until_both_train(tmp_path / "t")
    worker.interrupt("Enough.")
    outcome = outcome_of(worker)
    assert (outcome["state"], outcome["error"]) == ("interrupted", "Enough.")
    assert json.loads((tmp_path / "t/result.json").read_text())["total_seconds"] > 600, "with the start"
    wait_for(lambda: all(map(is_gone, pids)), 60)


@pytest.mark.slow
def test_nothing_is_left_of_a_killed_launcher_and_the_next_trial_has_its_cores(tmp_path, address):
    worker = start(tmp_path / "t", address, 600)
    pids = wait_until_both_train(tmp_path / "t")
    worker.kill("Enough.")
    assert outcome_of(worker)["state"] == "interrupted"
    wait_for(lambda: all(map(is_gone, pids)), 60)
    assert outcome_of(start(tmp_path / "again", address, 0.2))["state"] == "complete"


@pytest.mark.skipif(CORES < 2, reason="a trial on two devices needs two cores")
def test_a_search_runs_its_trials_on_two_devices(tmp_path, all_cores):
    ended = search(tmp_path, "--name", "d", "--devices_per_trial", "2", "--num_trials", "2", seconds=0.1, timeout=800)
    assert ended.returncode == 0, ended.stderr
    assert "Each trial: 2 processes that train together, each with " in ended.stdout
    trials = load_trials(tmp_path / "d")
    assert list(trials["state"]) == ["complete"] * 2
    assert TrialFolder(tmp_path / "d/trials/t0002").rank(1).result.is_file()
    assert json.loads((tmp_path / "d/manifest.json").read_text())["options"]["devices_per_trial"] == 2
    command = (tmp_path / "d/recommended/command.sh").read_text()
    assert "-m torch.distributed.run --standalone --nproc_per_node 2 timellm/run_main.py" in command


@pytest.mark.slow
@pytest.mark.skipif(CORES < 2, reason="a trial on two devices needs two cores")
def test_real_trials_train_on_two_devices(tmp_path, all_cores):
    tiny_config(tmp_path)  # makes the backbone and the series
    task = {"--data": "custom", "--root_path": tmp_path, "--data_path": "series.csv", "--llm_path": tmp_path / "gpt2"}
    run = {"--llm_model": "gpt2", "--space": "smoke", "--name": "real", "--num_trials": 2, "--devices_per_trial": 2}
    arguments = [str(part) for pair in {**task, **run, "--runs_dir": tmp_path / "runs"}.items() for part in pair]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "search/run.py", *arguments, "--no-dashboard"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    trials = load_trials(tmp_path / "runs/real")
    assert list(trials["state"]) == ["complete"] * 2
    assert (trials["seconds_per_epoch_low"] <= trials["seconds_per_epoch"]).all()
    result = json.loads((tmp_path / "runs/real/trials/t0001/result.json").read_text())
    assert "Trained by 2 processes; the global batch is 2 times as big." in result["notes"]
    other = json.loads((tmp_path / "runs/real/trials/t0001/rank1/result.json").read_text())
    assert other["val_mse"] == result["val_mse"]


def test_more_devices_than_there_are_are_refused_in_one_line(tmp_path, capsys):
    many = str(2 * (os.cpu_count() or 1))
    assert main(["--space", "smoke", "--runs_dir", str(tmp_path / "runs"), "--devices_per_trial", many]) == 2
    errors = capsys.readouterr().err
    assert "--devices_per_trial must be at most the machine's " in errors
    assert f"got {many}." in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def plan(**changes):
    asked = {"max_concurrent": None, "gpus_per_trial": None, "max_memory_gib": None, "device_memory_gib": 80.0}
    return plan_resources(**{"cores": 8, "gpus": 0, **asked, **changes})


def test_processes_of_a_trial_share_the_cores_of_a_cpu():
    found = plan(devices=2)
    assert (found.cores, found.max_concurrent, found.devices) == (4, 1, 2)
    assert found.bundle(RunConfig()) == {"CPU": 4, "GPU": 0}
    assert "CPU" not in found.request(RunConfig())
    assert found.max_memory_gib == pytest.approx(plan().max_memory_gib / 2, abs=0.01)


def test_each_process_of_a_trial_has_a_gpu():
    found = plan(gpus=4, devices=2)
    assert (found.cores, found.gpus, found.max_concurrent, found.max_memory_gib) == (2, 1, 2, 80.0)
    assert found.bundle(RunConfig(num_workers=8)) == {"CPU": 2, "GPU": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devices": 9}, r"--devices_per_trial must be at most the machine's cores \(8\), got 9"),
        ({"gpus": 2, "devices": 4}, r"--devices_per_trial must be at most the machine's GPUs \(2\), got 4"),
        ({"gpus": 2, "devices": 2, "gpus_per_trial": 1.0}, "--gpus_per_trial must be left out with"),
        ({"devices": 4, "max_concurrent": 4}, r"--max_concurrent times --devices_per_trial 4 must be at most"),
        (
            {"gpus": 4, "devices": 4, "max_concurrent": 2},
            r"--max_concurrent 2 times --devices_per_trial 4 times 1 GPUs",
        ),
    ],
)
def test_more_than_the_machine_has_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        plan(**changes)


@pytest.mark.parametrize(
    ("gpus", "devices", "nodes", "expected"),
    [
        (0, 2, [{"CPU": 4}, {"CPU": 4}], (4, 1)),
        (0, 2, [{"CPU": 4}], (2, 1)),
        (0, 2, [{"CPU": 4}] * 5, (4, 2)),
        (1, 4, [{"CPU": 8, "GPU": 4}, {"CPU": 8, "GPU": 4}], (2, 2)),
    ],
)
def test_a_cluster_has_room_for_all_devices_of_its_trials(gpus, devices, nodes, expected):
    found, notes = share_cluster(plan(gpus=gpus, devices=devices, on_cluster=True), nodes, None)
    assert (found.cores, found.max_concurrent) == expected
    assert f"Each trial: {devices} processes" in notes[-1]


def test_more_devices_than_a_cluster_has_are_refused():
    with pytest.raises(InputError, match=r"--devices_per_trial must be at most the cluster's GPUs \(1\), got 2"):
        share_cluster(plan(gpus=1, devices=2, on_cluster=True), [{"CPU": 4, "GPU": 1}], None)
    with pytest.raises(InputError, match=r"--devices_per_trial must be at most the cluster's cores \(2\), got 3"):
        share_cluster(plan(devices=3, on_cluster=True), [{"CPU": 1}, {"CPU": 1}], None)


def ended(rank, state, seconds, *, has_result=True, error=None):
    known = {"rank": rank, "began_at": 7.0, "ended_at": seconds, "has_result": has_result}
    return {**known, "state": state, "error": error, "startup_seconds": 3.0, "total_seconds": None}


@pytest.mark.parametrize(
    ("first", "second", "state", "error"),
    [
        (ended(0, "complete", 1), ended(1, "complete", 2), "complete", None),
        (ended(0, "complete", 2), ended(1, "failed", 1, error="E"), "complete", None),
        (ended(0, "failed", 1, error="lost"), ended(1, "failed", 2, has_result=False, error="killed"), "failed",
         "Process 2 of 2: killed"),
        (ended(0, "failed", 1, error="lost"), ended(1, "out_of_memory", 2, error="M"), "out_of_memory",
         "Process 2 of 2: M"),
        (ended(0, "interrupted", 2, error="stop"), ended(1, "failed", 1, error="lost"), "interrupted", "stop"),
        (ended(0, "failed", 1, error="E"), ended(1, "failed", 2, error="lost"), "failed", "E"),
    ],
)  # fmt: skip
def test_the_process_that_was_the_cause_says_how_the_trial_ended(first, second, state, error):
    result = conclude([first, second], 2, began_at=5.0)
    assert result == {"state": state, "error": error, "startup_seconds": 5.0, "total_seconds": None}
