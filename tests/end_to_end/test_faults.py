"""What goes wrong in the middle of a real training ends in a row that says what to do, and the search goes on."""

import sys

import pytest

from results import load_trials
from search.tune.trainable import follow
from search.tune.worker_process import WorkerProcess, WorkerSettings
from tests.end_to_end.real_searches import FAULTY_WORKER, FIXED, search_tiny
from tests.search.searching import ROOT
from tests.timellm.tiny_runs import tiny_config
from timellm.contract.job import Job
from timellm.contract.layout import TrialFolder

FAULTS = {
    "cuda": ("batch_size=2", "cuda out of memory", "out_of_memory", "CUDA out of memory. Tried to allocate 2.00 GiB."),
    "limit": ("batch_size=3", "memory limit", "out_of_memory", "must stay within 0.1 GiB of memory"),
    "exception": ("batch_size=4", "exception", "failed", "RuntimeError: shapes cannot be multiplied"),
    "sigkill": ("batch_size=5", "sigkill", "failed", "The worker was killed by SIGKILL from outside."),
    "loader": ("batch_size=6", "loader killed", "failed", "killed by signal: Killed"),
    "disk": ("batch_size=7", "disk full", "failed", "could not write why: the disk of"),
    "loss": ("learning_rate=1e+30", "nothing, the loss overflows", "diverged", "--max_grad_norm"),
}
"""By the plan that meets it: when, what happens, the state of the row, and a part of its error."""
SPACE = f"""
[space]
name = "faults"
[search]
fidelity = 64
{FIXED}
[knobs.batch_size]
values = [2, 3, 4, 5, 6, 7, 8]
[knobs.num_workers]
values = [0, 1]
[knobs.learning_rate]
values = [1e-3, 1e30]
[baseline]
batch_size = 8
num_workers = 0
learning_rate = 1e-3
[plans.cuda]
batch_size = 2
[plans.limit]
batch_size = 3
[plans.exception]
batch_size = 4
[plans.sigkill]
batch_size = 5
[plans.loader]
batch_size = 6
num_workers = 1
[plans.disk]
batch_size = 7
[plans.loss]
learning_rate = 1e30
[plans.good]
num_workers = 1
"""


def test_a_gpu_out_of_memory_is_a_state_with_remedies(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_FAULTS", '{"batch_size=8": "cuda out of memory"}')
    folder = TrialFolder(tmp_path / "t0001")
    config = tiny_config(tmp_path, train_samples=32, val_samples=8).to_dict()
    command = (sys.executable, str(FAULTY_WORKER))
    job = Job(config=config, run_dir=str(folder.path), threads=1)
    worker = WorkerProcess(WorkerSettings(command=command, project_root=str(ROOT)), job)
    assert follow(worker, folder, None) is None
    outcome = worker.outcome()
    assert outcome["state"] == "out_of_memory"
    assert "CUDA out of memory. Tried to allocate 2.00 GiB." in outcome["error"]
    assert "--accumulation_steps" in outcome["error"]


@pytest.mark.slow
def test_every_fault_of_a_real_training_is_a_row_and_the_search_goes_on(tmp_path):
    faults = {condition: what for condition, what, _, _ in FAULTS.values()}
    count = str(len(FAULTS) + 2)
    ended = search_tiny(tmp_path, "faults", SPACE, "--num_trials", count, "--time_budget", "none", faults=faults)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    trials = load_trials(tmp_path / "runs" / "faults").set_index("source")
    for plan, (_, _, state, error) in FAULTS.items():
        assert (plan, trials.loc[plan, "state"]) == (plan, state), trials.loc[plan, "error"]
        assert error in trials.loc[plan, "error"]
    assert trials.loc["baseline", "state"] == "complete"
    assert trials.loc["good", "state"] == "complete"
