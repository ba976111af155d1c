"""What strangers on the network, in the temporary folder or in a run folder could do to a search."""

import os
import shutil
import tempfile
from pathlib import Path

import psutil
import pytest

from results import RunFolder
from search.tune.cluster import secrets_put_away, set_environment
from tests.search.searching import kill_tree, processes, search, start
from tests.waiting import wait_for
from timellm.machine.claims import OWNER

SECRETS = {
    "AWS_ACCESS_KEY_ID": "planted-id-2b7d",
    "AWS_SECRET_ACCESS_KEY": "planted-aws-91c4",
    "AWS_SESSION_TOKEN": "planted-session-77aa",
    "WANDB_API_KEY": "planted-wandb-5f0e",
    "HF_TOKEN": "planted-hub-c3d8",
    "DATABASE_PASSWORD": "planted-password-08ef",
}


def files_with(secrets, *folders):
    found = set()
    for folder in folders:
        for path in Path(folder).rglob("*"):
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                found |= {(name, str(path)) for name, value in secrets.items() if value.encode() in content}
    return found


@pytest.fixture
def temporary():
    """A temporary folder whose path is short enough for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="ray-test-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_a_search_listens_on_this_machine_alone_and_leaves_no_secret_in_a_file(tmp_path, temporary, monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_TMPDIR", str(temporary))
    monkeypatch.setenv("TMPDIR", str(temporary))
    process = start(tmp_path, "--name", "s", "--fidelity", "64", "--num_trials", "2", "--dashboard", seconds=2)
    try:
        wait_for(lambda: RunFolder(tmp_path / "s").trial("t0002").events.is_file() or process.poll() is not None)
        listening = {
            (one.laddr.ip, other.name())
            for other in processes(tmp_path)
            for one in other.net_connections("inet")
            if one.status == psutil.CONN_LISTEN
        }
        modes = {
            other.environ().get("RAY_AUTH_MODE")
            for other in processes(tmp_path)
            if other.name() in ("gcs_server", "raylet")
        }
        during = files_with(SECRETS, tmp_path, temporary)
        sockets = list(temporary.glob("pymp-*"))
        claimed = [folder for folder in sockets if (folder / OWNER).is_file()]
        process.communicate(timeout=120)
    finally:
        kill_tree(process.pid)
    assert process.returncode == 0
    assert {"gcs_server", "raylet"} <= {name for _, name in listening}
    assert modes == {"token"}
    assert {ip.removeprefix("::ffff:") for ip, _ in listening} == {"127.0.0.1"}, listening
    assert during == set() == files_with(SECRETS, tmp_path, temporary)
    assert sockets == claimed != [], "those of Ray's dashboard, which the next search removes if this one is killed"
    assert not [*temporary.glob("ray/session_2*"), *temporary.glob("pymp-*")]


def test_secrets_are_back_in_the_environment_after_a_search(monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    with secrets_put_away():
        assert [name for name in SECRETS if name in os.environ] == ["HF_TOKEN"]
    assert all(os.environ[name] == value for name, value in SECRETS.items())


@pytest.mark.parametrize(
    "name",
    [
        "GITHUB_TOKEN",
        "TOKEN",
        "GH_PAT",
        "MYSQL_PWD",
        "SENTRY_DSN",
        "AZURE_STORAGE_CONNECTION_STRING",
        "SLACK_WEBHOOK_URL",
    ],
)
def test_other_names_of_secrets_are_put_away_too(monkeypatch, name):
    monkeypatch.setenv(name, "planted")
    with secrets_put_away():
        assert name not in os.environ
    assert os.environ[name] == "planted"


@pytest.mark.parametrize("name", ["PWD", "PATH", "TOKENIZERS_PARALLELISM", "SSH_AUTH_SOCK", "RAY_AUTH_TOKEN_PATH"])
def test_what_only_looks_like_a_secret_stays(monkeypatch, name):
    monkeypatch.setenv(name, "/kept")
    with secrets_put_away():
        assert os.environ[name] == "/kept"


@pytest.mark.parametrize(("address", "mode"), [(None, "token"), ("10.0.0.1:6379", None)])
def test_a_ray_of_ones_own_asks_for_a_token_and_a_cluster_decides_itself(monkeypatch, address, mode):
    monkeypatch.setattr(os, "environ", {"PYTHONPATH": ""})
    set_environment(address)
    assert os.environ.get("RAY_AUTH_MODE") == mode


@pytest.mark.slow
def test_a_path_that_is_too_long_for_sockets_is_no_obstacle(tmp_path, monkeypatch):
    (long := tmp_path / ("t" * 80)).mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    ended = search(tmp_path, "--name", "odd", "--fidelity", "64", "--num_trials", "1", seconds=0.01)
    assert ended.returncode == 0, ended.stderr
    assert "too long" in ended.stdout


@pytest.mark.parametrize("folder", ["100%20", "what?mode=ro", "a#b", "{0} 'it'"])
def test_a_study_lies_where_it_shall_whatever_the_folder_is_called(tmp_path, folder):
    from search.decide.propose.storage import open_storage

    (tmp_path / folder).mkdir()
    storage = open_storage(tmp_path / folder / "study.db")
    storage.get_all_studies()
    assert (tmp_path / folder / "study.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [folder]
