"""What surrounds the loop of a search: its folder, and the start of Ray."""

from types import SimpleNamespace

import pytest

from search.setup.options import parse
from search.setup.preparation import run_folder
from search.setup.resumption import lock
from search.tune import dashboard
from timellm.contract.errors import InputError
from timellm.contract.layout import RunFolder


def test_a_run_folder_belongs_to_one_search(tmp_path):
    import fcntl

    folder = RunFolder(tmp_path)
    with folder.lock.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="belongs to one search, but another one runs in"):
            lock(folder)
    lock(folder)
    lock(folder)  # by the same process


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
    def broken(cores, gpus, dashboard):
        raise RuntimeError("no port is free\nmore")

    monkeypatch.setattr(dashboard, "_start", broken)
    for wanted in (True, False):
        with pytest.raises(InputError, match="Ray must be able to start on this machine, but did not"):
            dashboard.start_ray(cores=1, gpus=0, address=None, dashboard=wanted)


def test_a_search_goes_on_without_a_dashboard_that_cannot_start(monkeypatch):
    def picky(cores, gpus, dashboard):
        if dashboard:
            raise RuntimeError("no port is free")
        return SimpleNamespace(dashboard_url=None)

    monkeypatch.setattr(dashboard, "_start", picky)
    started = dashboard.start_ray(cores=1, gpus=0, address=None, dashboard=True)
    assert started.notes == ("Ray's dashboard could not be started (no port is free); the search goes on without it.",)
