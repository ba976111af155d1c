"""A search on a Ray cluster of two nodes, which are two raylets on this machine."""

import subprocess
import sys

import pytest

from results import load_trials
from search.run import main
from tests.search.searching import kill_tree, search

CLUSTER = """
import time
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
print("address", cluster.address, flush=True)
time.sleep(600)
"""


@pytest.fixture
def address():
    process = subprocess.Popen([sys.executable, "-c", CLUSTER], stdout=subprocess.PIPE, text=True)
    try:
        line = next(line for line in process.stdout if line.startswith("address"))
        yield line.split()[1]
    finally:
        kill_tree(process.pid)
        process.wait()


@pytest.mark.slow
def test_a_cluster_runs_one_trial_per_node_and_is_left_running(tmp_path, address):
    arguments = ("--num_trials", "6", "--address", address)
    ended = search(tmp_path, "--name", "c", *arguments, seconds=1)
    assert ended.returncode == 0, ended.stderr
    assert "The cluster has 2 nodes that can run trials, with 1 CPU cores." in ended.stdout
    trials = load_trials(tmp_path / "c")
    assert set(trials["state"]) == {"complete"}
    starts = trials["started_at"].sort_values()
    assert (starts.diff().dt.total_seconds() < 0.9).any(), "no two trials ran at the same time"
    again = search(tmp_path, "--name", "d", "--num_trials", "1", "--address", address, seconds=0.1)
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "--address must be that of a running Ray cluster, got 127.0.0.1:1: "),
        ("nowhere", "--address must be HOST:PORT of a Ray cluster's head, or auto, got 'nowhere'"),
        ("ray://127.0.0.1:1", "--address must be HOST:PORT"),
    ],
)
def test_an_address_where_no_cluster_answers_is_refused_in_one_line(tmp_path, capsys, address, message):
    assert main(["--space", "smoke", "--runs_dir", str(tmp_path / "runs"), "--address", address]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "runs").exists()
