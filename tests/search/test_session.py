"""What surrounds the loop of a search: its folder, and the start of Ray."""

import errno
import subprocess
import sys
from types import SimpleNamespace

import pytest

from search.setup.options import parse
from search.setup.preparation import run_folder
from search.setup.resumption import lock
from search.tune import cluster
from timellm.contract.errors import InputError
from timellm.contract.layout import RunFolder

HOLDER = """
import sys, time
from pathlib import Path
from search.setup.resumption import lock
from timellm.contract.layout import RunFolder
lock(RunFolder(Path(sys.argv[1])))
print("locked", flush=True)
time.sleep(600)
"""
"""A process that holds a run folder until it is killed."""


def test_a_run_folder_belongs_to_one_search_until_that_is_killed(tmp_path):
    folder = RunFolder(tmp_path)
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "locked\n"
            with pytest.raises(InputError, match="belongs to one search, but another search is running in"):
                lock(folder)
        finally:
            holder.kill()
    lock(folder)
    lock(folder)  # by the same process


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_no_error_and_leaves_no_marker(tmp_path, monkeypatch, number):
    def refuse(descriptor, operation):
        raise OSError(number, "no locks here")

    monkeypatch.setattr("fcntl.flock", refuse)
    for _ in range(2):
        lock(RunFolder(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert not (tmp_path / ".lock").read_bytes()


def test_a_lock_that_cannot_be_opened_is_an_error(tmp_path):
    folder = RunFolder(tmp_path)
    folder.lock.mkdir()
    with pytest.raises(OSError, match=r"\.lock"):
        lock(folder)


def test_a_name_whose_search_never_began_is_free_again(tmp_path):
    folder = RunFolder(tmp_path / "name")
    folder.path.mkdir()
    lock(folder)
    options, _ = parse(["--runs_dir", str(tmp_path), "--name", "name"])
    assert run_folder(options).path == folder.path
    folder.manifest.write_text("{}")
    with pytest.raises(InputError, match="--name must be new"):
        run_folder(options)


def test_a_ray_that_cannot_start_is_one_line_with_or_without_its_dashboard(monkeypatch):
    def broken(**_):
        raise RuntimeError("no port is free\nmore")

    monkeypatch.setattr("ray.init", broken)
    for wanted in (True, False):
        with pytest.raises(InputError, match="Ray must be able to start on this machine, but did not"):
            cluster.start_ray(cores=1, gpus=0, address=None, dashboard=wanted)


def test_a_search_goes_on_without_a_dashboard_that_cannot_start(monkeypatch):
    def picky(*, include_dashboard, **_):
        if include_dashboard:
            raise RuntimeError("no port is free")
        return SimpleNamespace(dashboard_url=None)

    monkeypatch.setattr("ray.init", picky)
    started = cluster.start_ray(cores=1, gpus=0, address=None, dashboard=True)
    assert started.notes == ("Ray's dashboard could not be started (no port is free); the search goes on without it.",)
