"""A Ray that died, or does not answer, ends the wait for it; Ray is played by the tests."""

import json
import signal
import time
from types import SimpleNamespace

import pytest
from ray.tune.search import Searcher

from search.screen.interrupts import Interrupts
from search.tune import searcher as searcher_module
from search.tune.trainable import NOW, OUTCOME
from search.tune.watch import GaveUp, Watch
from tests.search.test_searcher import adapter
from timellm.contract.layout import TrialFolder

QUICKLY = 0.01


def wait_for_ever() -> None:
    while True:
        time.sleep(5)


def test_a_problem_of_ray_ends_a_wait_for_it():
    problems = iter([None, None, "Ray's raylet died"])
    watch = Watch(lambda: next(problems), seconds_between_looks=QUICKLY)
    with pytest.raises(GaveUp, match="raylet died"), watch:
        wait_for_ever()
    assert watch.problem == "Ray's raylet died"


def test_cleaning_up_that_waits_for_a_dead_ray_is_ended_too():
    def wait_and_clean_up():
        try:
            wait_for_ever()
        finally:
            wait_for_ever()

    with pytest.raises(GaveUp), Watch(lambda: "dead", seconds_between_looks=QUICKLY):
        wait_and_clean_up()


def test_what_is_being_written_is_written_to_its_end():
    written, busy = [], [True]

    def write_and_wait():
        time.sleep(20 * QUICKLY)
        written.append("row")
        busy[0] = False
        wait_for_ever()

    with pytest.raises(GaveUp), Watch(lambda: "dead", lambda: busy[0], seconds_between_looks=QUICKLY):
        write_and_wait()
    assert written == ["row"]


def test_a_watch_that_saw_nothing_leaves_no_trace():
    before = signal.getsignal(signal.SIGUSR2)
    with Watch(lambda: None, seconds_between_looks=QUICKLY) as watch:
        time.sleep(5 * QUICKLY)
    assert watch.problem is None
    assert signal.getsignal(signal.SIGUSR2) is before


def test_a_search_whose_ray_died_has_its_trial_interrupted_and_says_how_to_go_on(tmp_path):
    searcher, loop = adapter(tmp_path, "t0001", "t0002")
    searcher.suggest("a")
    searcher.break_off("Ray's raylet died")
    searcher.close()
    assert searcher.failure == "Ray's raylet died"
    assert [outcome["state"] for outcome in loop.outcomes] == ["interrupted"]
    assert "--resume" in loop.outcomes[0]["error"]
    assert TrialFolder(tmp_path / "trials" / "t0001").stop.read_text().startswith(NOW)


def test_an_actor_that_died_with_its_ray_is_no_failure_of_its_trial(tmp_path):
    searcher, loop = adapter(tmp_path, "t0001", dead=lambda: "Ray's raylet died")
    searcher.suggest("a")
    searcher.on_trial_complete("a", error=True)
    assert loop.outcomes[0]["state"] == "interrupted"
    assert searcher.failure == "Ray's raylet died"


def test_a_trial_of_which_nothing_is_heard_long_after_its_end_is_given_up(tmp_path, monkeypatch):
    searcher, loop = adapter(tmp_path, "t0001")
    deadline = time.time()
    loop.end_by = lambda job: deadline
    searcher.suggest("a")
    assert searcher.overdue() is None
    monkeypatch.setattr(searcher_module.time, "time", lambda: deadline + 91)
    assert "nothing was heard of a trial" in searcher.overdue()
    searcher.on_trial_complete("a", {OUTCOME: json.dumps({"state": "complete"})})
    assert searcher.overdue() is None


@pytest.mark.parametrize(("now", "seconds"), [(False, 90), (True, 15)])
def test_a_ray_that_does_not_heed_ctrl_c_is_given_up(tmp_path, monkeypatch, now, seconds):
    searcher, _ = adapter(tmp_path, "t0001")
    pressed = time.time()
    monkeypatch.setattr(searcher_module.time, "time", lambda: pressed)
    searcher.stop("Ctrl-C", now=now)
    assert searcher.overdue() is None
    monkeypatch.setattr(searcher_module.time, "time", lambda: pressed + seconds + 1)
    assert "told to end" in searcher.overdue()


def test_settings_whose_trial_met_a_full_disk_are_tried_again(tmp_path, monkeypatch):
    searcher, loop = adapter(tmp_path, "t0001", "t0002")
    searcher.suggest("a")
    monkeypatch.setattr(searcher_module.shutil, "disk_usage", lambda path: SimpleNamespace(free=4096))
    searcher.on_trial_complete("a", {OUTCOME: json.dumps({"state": "failed", "error": "The worker ended."})})
    assert loop.outcomes[0]["state"] == "interrupted"
    assert "is full" in loop.outcomes[0]["error"]
    assert "is full" in searcher.failure
    assert searcher.suggest("b") == Searcher.FINISHED


def test_a_trial_that_fails_while_there_is_room_stays_failed(tmp_path):
    searcher, loop = adapter(tmp_path, "t0001")
    searcher.suggest("a")
    searcher.on_trial_complete("a", {OUTCOME: json.dumps({"state": "failed", "error": "The worker ended."})})
    assert (loop.outcomes[0]["state"], searcher.failure) == ("failed", None)


def test_a_third_ctrl_c_waits_until_the_state_of_a_search_is_written():
    with Interrupts() as interrupts:
        with interrupts.held():
            for _ in range(4):
                signal.raise_signal(signal.SIGINT)
        assert interrupts.count == 4
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
