"""Faults of the search itself, with real processes and real signals; the long suites are slow tests."""

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import psutil
import pytest
from optuna.trial import TrialState

from benchmarks.kills import kill_table
from benchmarks.readers import TRIALS, watched_search
from results import RunFolder, load_trials
from tests.search.searching import kill_tree, ports, processes, search, start, workers
from tests.waiting import wait_for


def shared_memory() -> set[str]:
    return set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()


def kill_once(folder: RunFolder, trials: int, delay: float) -> None:
    """Start or resume a search, wait for a trial to start and a little more, and kill the driver."""
    first = "--resume" if folder.manifest.is_file() else "--name"
    process = start(folder.path.parent, first, folder.name, "--num_trials", str(trials), seconds=0.4)
    jobs = "trials/*/job.json"
    before = {path: path.stat().st_mtime for path in folder.path.glob(jobs)}
    try:
        wait_for(
            lambda: (
                any(before.get(path) != path.stat().st_mtime for path in folder.path.glob(jobs))
                or process.poll() is not None
            )
        )
        time.sleep(delay)
    finally:
        process.kill()
        process.communicate()
    wait_for(lambda: not list(workers(folder.path)), 30)


def kill_at_random_moments(runs: Path, kills: int, trials: int, generator: random.Random) -> None:
    """A search whose driver is killed again and again, and resumed each time; then resumed to its end."""
    folder = RunFolder(runs / "k")
    for _ in range(kills):
        kill_once(folder, trials, generator.uniform(0.0, 2.0))
    ended = search(runs, "--resume", "k", "--num_trials", str(trials), seconds=0.05)
    assert ended.returncode == 0, ended.stderr


def check_killed(folder: RunFolder, trials: int) -> None:
    """No row is lost or doubled, and the study agrees with the table."""
    table = load_trials(folder.path)
    assert len(table) == trials
    assert list(table["trial_id"].sort_values()) == [f"t{number:04d}" for number in range(1, trials + 1)]
    assert set(table["state"]) == {"complete"}
    knobs = [f"config/{name}" for name in ("precision", "batch_size", "llm_layers", "prompt_prefix", "attention")]
    assert not table[knobs].duplicated().any()
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{folder.study}")
    assert not [trial for trial in study.trials if trial.state == TrialState.RUNNING]
    told = [
        trial.user_attrs["trial_id"]
        for trial in study.trials
        if trial.state == TrialState.COMPLETE and "duplicate_of" not in trial.user_attrs
    ]
    assert sorted(told) == sorted(table["trial_id"])


def test_two_kills_of_the_driver_lose_and_double_no_row(tmp_path):
    kill_at_random_moments(tmp_path, kills=2, trials=7, generator=random.Random(1))
    check_killed(RunFolder(tmp_path / "k"), 7)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_kills_of_the_driver_lose_and_double_no_row(tmp_path):
    kill_at_random_moments(tmp_path, kills=10, trials=20, generator=random.Random(2))
    check_killed(RunFolder(tmp_path / "k"), 20)


@pytest.mark.slow
def test_a_search_goes_on_after_the_whole_ray_session_was_killed(tmp_path):
    process = start(tmp_path, "--name", "r", "--num_trials", "4", seconds=2)
    folder = RunFolder(tmp_path / "r")
    try:
        wait_for(lambda: folder.trial("t0002").events.is_file())
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=60)
    finally:
        kill_tree(process.pid)
        process.wait()
    assert not list(workers(folder.path))
    ended = search(tmp_path, "--resume", "r", seconds=0.05)
    assert ended.returncode == 0, ended.stderr
    table = load_trials(folder.path)
    assert list(table["trial_id"]) == ["t0001", "t0002", "t0003", "t0004"]
    assert set(table["state"]) == {"complete"}


@pytest.mark.slow
@pytest.mark.parametrize(("process_name", "presses"), [("raylet", 0), ("gcs_server", 0), ("raylet", 2)])
def test_a_search_whose_ray_died_ends_by_itself_with_what_was_learnt(tmp_path, process_name, presses):
    process = start(tmp_path, "--name", "dead", "--fidelity", "64", "--num_trials", "4", seconds=3)
    folder = RunFolder(tmp_path / "dead")
    try:
        wait_for(lambda: folder.trial("t0002").events.is_file() and list(workers(folder.path)))
        victim = next(one for one in processes(tmp_path) if one.name() == process_name)
        for _ in range(presses):
            process.send_signal(signal.SIGINT)
        victim.kill()
        output, errors = process.communicate(timeout=120)
    finally:
        kill_tree(process.pid)
        process.wait()
    assert process.returncode == (130 if presses else 1), errors
    assert not list(workers(folder.path))
    assert folder.read_manifest().status == "interrupted"
    table = load_trials(folder.path).set_index("trial_id")
    assert dict(table["state"]) == {"t0001": "complete", "t0002": "interrupted"}
    assert "t0002" in folder.report.read_text()
    assert "Train it" in output
    assert presses or ("broke off" in errors and "--resume dead" in errors)
    ended = search(tmp_path, "--resume", "dead", seconds=0.05)
    assert ended.returncode == 0, ended.stderr
    assert set(load_trials(folder.path)["state"]) == {"complete"}


MANY = """
[space]
name = "many"
[search]
fidelity = 512
[knobs.batch_size]
values = [4, 8, 16, 32, 64, 128]
[knobs.llm_layers]
values = [1, 2, 3, 4, 5, 6]
[knobs.precision]
values = ["fp32", "bf16"]
[knobs.attention]
values = ["eager", "sdpa"]
[knobs.lr_scaling]
values = ["none", "sqrt"]
"""
STATE_OF_FAULT = {
    "sigkill": "failed",
    "crash": "failed",
    "out of memory": "out_of_memory",
    "diverged": "diverged",
    "bad input": "failed",
    "disk full": "failed",
    "hang": "failed",
}


def random_faults(generator: random.Random) -> dict[str, str]:
    """A fault for a third of the space, but never for the baseline."""
    faults = {}
    for batch, layers, precision in itertools.product((4, 8, 16, 32, 64, 128), range(1, 7), ("fp32", "bf16")):
        if generator.random() < 1 / 3 and (batch, layers) != (32, 6):
            kind = generator.choice(list(STATE_OF_FAULT))
            faults[f"batch_size={batch},llm_layers={layers},precision={precision}"] = kind
    return faults


def check_many(runs: Path, trials: int) -> None:
    """A search of that many trials, faults in a third of them: right rows, an equal study, and nothing left behind."""
    runs.mkdir()
    (space := runs / "many.toml").write_text(MANY)
    faults, memory, used = random_faults(random.Random(3)), shared_memory(), set()
    process = start(
        runs, "--space", str(space), "--name", "m", "--num_trials", str(trials), "--sampler", "random",
        "--time_budget", "none", "--trial_timeout", "15", faults=faults, seconds=0.01,
    )  # fmt: skip
    try:
        wait_for(lambda: RunFolder(runs / "m").trials_csv.is_file() or process.poll() is not None, 600)
        used |= ports(runs)
        _, errors = process.communicate(timeout=15 * trials)
    finally:
        kill_tree(process.pid)
    assert process.returncode == 0, errors
    table = load_trials(runs / "m")
    assert len(table) == trials
    for _, row in table.iterrows():
        key = ",".join(f"{name}={row[f'config/{name}']}" for name in ("batch_size", "llm_layers", "precision"))
        assert row["state"] == STATE_OF_FAULT.get(faults.get(key), "complete"), row["error"]
    assert table["state"].nunique() >= 3
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{runs}/m/study.db")
    ended = [trial.user_attrs for trial in study.trials if "state" in trial.user_attrs]
    told = {attributes["trial_id"]: attributes["state"] for attributes in ended}
    assert told == dict(zip(table["trial_id"], table["state"].astype(str), strict=True))
    wait_for(lambda: not list(processes(runs)), 30)
    assert used, "Ray was not seen to listen"
    assert not used & listening()
    assert shared_memory() - memory == set()


def listening() -> set[int]:
    """Ports that anything on this machine listens on."""
    found = psutil.net_connections("inet")
    return {connection.laddr.port for connection in found if connection.status == psutil.CONN_LISTEN}


def test_twenty_trials_with_faults_in_a_third_of_them_leave_nothing_behind(tmp_path):
    check_many(tmp_path / "runs", 20)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_trials_with_faults_in_a_third_of_them(tmp_path):
    check_many(tmp_path / "runs", 200)


def test_a_full_run_folder_ends_the_search_with_one_line(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("A small disk needs the right to mount a tmpfs. Run the tests as root.")
    try:
        (disk / "ballast").write_bytes(b"0" * (60 * 2**20 - 300_000))
        ended = search(disk, "--name", "f", "--num_trials", "20", seconds=0.05)
        assert ended.returncode == 1, ended.stdout
        assert "--resume f" in ended.stderr
        assert ended.stderr.count("\n") == 1, ended.stderr
        (disk / "ballast").unlink()
        again = search(disk, "--resume", "f", "--num_trials", "5", seconds=0.05)
        assert again.returncode == 0, again.stderr
        assert len(load_trials(disk / "f")) >= 5
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def test_a_run_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    ended = search(tmp_path / "file" / "runs", "--name", "u", "--num_trials", "1")
    assert ended.returncode == 2
    assert "must be writable" in ended.stderr
    assert ended.stderr.count("\n") == 1


READER = """
import sys, time, optuna
from optuna.storages import RDBStorage
path = sys.argv[1]
while True:
    try:
        storage = RDBStorage("sqlite:///" + path)
        break
    except Exception:
        time.sleep(0.05)
connection = storage.engine.connect()
from sqlalchemy import text
while True:
    for study in storage.get_all_studies():
        storage.get_all_trials(study._study_id)
    transaction = connection.begin()
    connection.execute(text("SELECT count(*) FROM trials")).fetchall()
    time.sleep(0.2)
    transaction.rollback()
"""


def test_a_search_whose_study_is_read_from_its_start_to_its_end_is_whole(tmp_path):
    folder = RunFolder(tmp_path / "read")
    process = start(tmp_path, "--name", "read", "--fidelity", "64", "--num_trials", "4", seconds=0.3)
    wait_for(lambda: folder.study.is_file() or process.poll() is not None)
    reader = subprocess.Popen([sys.executable, "-c", READER, str(folder.study)])
    try:
        output, errors = process.communicate(timeout=200)
        assert reader.poll() is None
    finally:
        reader.kill()
        reader.wait()
        kill_tree(process.pid)
    assert process.returncode == 0, errors
    assert folder.read_manifest().status == "finished"
    assert len(load_trials(folder.path)) == 4
    assert all(name in folder.report.read_text() for name in ("t0001", "t0002", "t0003", "t0004"))
    assert "Train it" in output


@pytest.mark.slow
def test_a_search_whose_study_optuna_dashboard_shows_all_the_time_is_whole(tmp_path):
    watched = watched_search(tmp_path)
    assert (watched.status, watched.rows, watched.is_whole) == (0, TRIALS, True), watched.errors
    assert watched.requests > 0
    assert watched.most_trials > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_process_costs_nothing_but_the_trial_in_flight():
    """The others are in tests of their own, above."""
    killed = kill_table(("actor", "fork server", "worker"))
    assert [row[1] for row in killed.rows] == ["0", "0", "0"]
    assert [row[4] for row in killed.rows] == ["0", "0", "0"]
    assert [row[3] for row in killed.rows] == ["failed", "failed", "failed"]


@pytest.mark.slow
def test_a_search_whose_output_nobody_reads_goes_on_to_its_end(tmp_path):
    process = start(tmp_path, "--name", "head", "--fidelity", "64", "--num_trials", "2", seconds=0.05)
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    assert process.wait(200) == 0
    assert RunFolder(tmp_path / "head").read_manifest().status == "finished"


def test_a_name_whose_ray_cannot_start_is_free_again(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "file"))
    ended = search(tmp_path, "--name", "n", "--fidelity", "64", "--num_trials", "1")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    monkeypatch.delenv("RAY_TMPDIR")
    assert search(tmp_path, "--name", "n", "--fidelity", "64", "--num_trials", "1", "--dry_run").returncode == 0
