"""A session's own decisions; Ray and the training are played by the tests."""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from search import session
from search.decide.plan import Fidelity, Plan
from search.screen.interrupts import Interrupts
from search.session import Session
from search.setup.options import parse
from search.setup.preparation import run_folder
from search.setup.resumption import _lock
from search.tune import dashboard
from search.tune.trainable import STOP_FILE, ask_to_stop
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.contract.job import Job
from timellm.contract.layout import RunFolder

PLAN = Plan(fidelity=Fidelity.of_samples(256))


class Played(Session):
    """A session whose probe and control are over at once; `presses` names the one during which Ctrl-C comes."""

    def __init__(self, folder, presses):
        self.presses, self.planned, self.searched = presses, [], False
        self._prepared = SimpleNamespace(folder=RunFolder(folder), baseline=RunConfig(), options=None)
        self._ledger = SimpleNamespace(rows=[])
        self._manifest = SimpleNamespace(
            values={}, plan=lambda plan, notes: self.planned.append(plan), update=lambda rows: None
        )
        self._notes, self._terminal = [], SimpleNamespace(say=lambda note: None)

    @contextlib.contextmanager
    def _ray(self):
        yield

    def _deadline(self):
        return None

    def _plan(self, deadline, interrupts):
        interrupts.count += self.presses == "probe"
        return PLAN

    def _run_aside(self, name, config, interrupts):
        interrupts.count += self.presses == name
        return {"state": "interrupted", "naive_mse": {"last value": 1.5}}

    def _search(self, plan, deadline, interrupts):
        self.searched = True
        return session.Ended()


def test_a_guess_that_an_interrupted_probe_leaves_is_not_kept(tmp_path):
    played = Played(tmp_path, "probe")
    assert played.run(Interrupts()).is_interrupted
    assert played.planned == []


def test_controls_that_were_interrupted_are_measured_again_later(tmp_path):
    played = Played(tmp_path, "control")
    assert played.run(Interrupts()).is_interrupted
    assert played.planned == [PLAN]
    assert "controls" not in played._manifest.values
    assert not played.searched


def test_an_undisturbed_session_searches(tmp_path):
    played = Played(tmp_path, None)
    assert not played.run(Interrupts()).is_interrupted
    assert played._manifest.values["controls"] == [{"name": "last value", "val_mse": 1.5}]
    assert played.searched


def test_a_run_aside_forgets_what_an_earlier_one_was_told(tmp_path, monkeypatch):
    ask_to_stop(tmp_path / "control", "earlier")

    class Worker:
        def __init__(self, settings, job):
            self.was_told = (Path(job.run_dir) / STOP_FILE).exists()

        def is_running(self):
            return False

        def new_events(self):
            return []

        def outcome(self):
            return {"was_told": self.was_told}

        def kill(self, reason):
            pass

    monkeypatch.setattr(session, "WorkerProcess", Worker)
    monkeypatch.setattr(Session, "_worker", lambda self, config: session.WorkerSettings(project_root="/"))
    monkeypatch.setattr(
        Session,
        "_job",
        lambda self, config, folder: Job(config=config.to_dict(), run_dir=str(folder.path), threads=1),
    )
    played = Played(tmp_path, None)
    assert Session._run_aside(played, "control", RunConfig(), Interrupts()) == {"was_told": False}


def test_a_run_folder_belongs_to_one_search(tmp_path):
    import fcntl

    folder = RunFolder(tmp_path)
    with folder.lock.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="belongs to one search, but another one runs in"):
            _lock(folder)
    _lock(folder)
    _lock(folder)  # by the same process


def test_a_name_whose_search_never_began_is_free_again(tmp_path):
    folder = RunFolder(tmp_path / "name")
    folder.path.mkdir()
    _lock(folder)
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
