"""What killed searches leave is removed by the next one, and nothing else."""

import os
import subprocess
import sys

import pytest

from search.setup.leftovers import remove_drafts
from timellm.machine.claims import OWNER, claim, remove_claimed_by_dead


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


@pytest.mark.parametrize("kind", ["session_", "pymp-"])
def test_only_folders_that_dead_processes_have_claimed_go(tmp_path, dead, kind):
    mine, gone, foreign, elsewhere = (tmp_path / f"{kind}{name}" for name in ("mine", "gone", "foreign", "elsewhere"))
    for folder in (mine, gone, foreign, elsewhere):
        (folder / "logs").mkdir(parents=True)
    for folder in (mine, gone, elsewhere):
        claim(folder)
    _, namespace = (gone / OWNER).read_text().split(maxsplit=1)
    (gone / OWNER).write_text(f"{dead} {namespace}")
    (elsewhere / OWNER).write_text(f"{dead} of another container")
    (tmp_path / f"{kind}link").symlink_to(mine)
    assert remove_claimed_by_dead(tmp_path, f"{kind}*") == [gone]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{kind}{name}" for name in ("elsewhere", "foreign", "link", "mine")
    ]


KILLED = """
import os, signal, sys, torch
from torch.utils.data import DataLoader
from timellm.machine.claims import claim_loader_folder
claim_loader_folder()
for batch in DataLoader(torch.zeros(8, 2), batch_size=2, num_workers=1):
    break
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("end", ["killed", "ended"])
def test_the_folder_of_loader_workers_goes_with_their_process_or_with_the_next_search(tmp_path, end):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", KILLED, end], env=environment, check=end == "ended")
    left = list(tmp_path.glob("pymp-*"))
    assert len(left) == (end == "killed")
    assert remove_claimed_by_dead(tmp_path, "pymp-*") == left
    assert not list(tmp_path.glob("pymp-*"))
