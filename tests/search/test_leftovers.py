"""What killed searches leave is removed by the next one, and nothing else."""

import os
import subprocess

import pytest

from search.setup.leftovers import claim_session, remove_drafts, remove_sessions


@pytest.fixture
def dead() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_drafts_of_dead_processes_go_and_all_else_stays(tmp_path, dead):
    drafts = [tmp_path / f".trials.csv.{dead}.0a1b2c3d.tmp", tmp_path / "plots" / f".front.html.{dead}.00000000.tmp"]
    others = [
        tmp_path / f".report.html.{os.getpid()}.0a1b2c3d.tmp",  # somebody is writing it
        tmp_path / "trials.csv",
        tmp_path / "notes.tmp",
        tmp_path / "ray" / f".state.{dead}.0a1b2c3d.tmp",
    ]
    for path in (*drafts, *others):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    assert sorted(remove_drafts(tmp_path)) == sorted(drafts)
    assert not any(path.exists() for path in drafts)
    assert all(path.exists() for path in others)


def test_only_sessions_of_dead_searches_go(tmp_path, dead):
    mine, gone, foreign = (tmp_path / f"session_{name}" for name in ("mine", "gone", "foreign"))
    for folder in (mine, gone, foreign):
        (folder / "logs").mkdir(parents=True)
    claim_session(mine)
    claim_session(gone)
    next(gone.glob("*.pid")).write_text(str(dead))
    assert remove_sessions(tmp_path) == [gone]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["session_foreign", "session_mine"]
