"""Odd inputs, made from a seed: a sample of those that `python -m benchmarks robustness` counts."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import fuzzing, kills, readers
from benchmarks.fuzzing import Case, Outcome, fuzz
from benchmarks.robustness import INPUTS, KINDS, counts_table
from results import RunFolder


def faults(outcomes: list[Outcome]) -> list[str]:
    return [f"{one.kind} {one.number}: {one.problem}" for one in outcomes if one.problem is not None]


def test_a_sample_of_odd_inputs_ends_without_a_traceback():
    outcomes = list(fuzz(KINDS, 100, seed=1))
    assert faults(outcomes) == []
    assert {0, 2} <= {outcome.status for outcome in outcomes}


@pytest.mark.slow
def test_every_odd_input_ends_without_a_traceback():
    assert faults(list(fuzz(KINDS, INPUTS, seed=2))) == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_is_made_again_from_its_seed(kind, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    made = []
    for folder in (first, second):
        folder.mkdir()
        case = KINDS[kind](random.Random("7"), folder)
        files = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        made.append(([word.replace(str(folder), "") for word in case.words], files))
    assert made[0] == made[1]


def _ended(command) -> Outcome:
    (outcome,) = fuzz({"made": lambda draw, folder: Case((), command)}, 1)
    return outcome


def test_the_frame_sees_what_goes_wrong(monkeypatch):
    def fails() -> int:
        raise ValueError("no luck")

    def waits() -> int:
        time.sleep(5)
        return 0

    assert "traceback: ValueError: no luck" in str(_ended(fails).problem)
    with monkeypatch.context() as quickly:
        quickly.setattr(fuzzing, "LIMIT_SECONDS", 0.05)
        assert str(_ended(waits).problem).startswith("hang")
    assert _ended(lambda: 3).problem == "status 3"
    assert "status 2 without a line" in str(_ended(lambda: 2).problem)
    assert _ended(lambda: 0).problem is None
    assert counts_table([_ended(lambda: 3), _ended(lambda: 0)]).row("made")[5] == "1 status 3"


def test_a_worker_and_the_server_that_forked_it_are_told_apart(tmp_path):
    folder = RunFolder(tmp_path / "kill")
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        folder.trial("t0001").path.mkdir(parents=True)
        folder.trial("t0001").events.write_text(json.dumps({"event": "started", "pid": process.pid}) + "\n")
        found = {victim: set(kills.pids(victim, 1, folder)) for victim in kills.VICTIMS}
    finally:
        process.kill()
        process.communicate()
    assert found["worker"] == {process.pid}
    assert found["fork server"] == {os.getpid()}
    assert found["driver"] == {1}
    assert found["raylet"] == found["gcs_server"] == found["actor"] == set()


def test_a_dashboard_that_does_not_answer_has_shown_nothing(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert readers.trials_shown("http://127.0.0.1:9") is None


def test_every_kind_writes_into_its_folder_alone(tmp_path):
    before = sorted(Path.cwd().iterdir())
    for kind, make in KINDS.items():
        folder = tmp_path / kind
        folder.mkdir()
        make(random.Random("1"), folder)
    assert sorted(Path.cwd().iterdir()) == before
