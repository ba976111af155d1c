"""What the adapter hands to Tune and back to the loop; both sides are played by the tests."""

import json
from pathlib import Path

import pytest
from ray.tune.search import Searcher

from search.tune.searcher import LoopSearcher
from search.tune.trainable import IS_CONTENDED, OUTCOME, ask_to_stop
from search.tune.worker_process import WorkerSettings
from timellm.contract.config import RunConfig
from timellm.contract.job import Job
from timellm.contract.layout import TrialFolder


class Played:
    """A loop that hands out some jobs and keeps what came of them."""

    def __init__(self, *folders: Path):
        config = RunConfig(train_samples=128, val_samples=64).to_dict()
        self.jobs = [Job(config=config, run_dir=str(folder), threads=1) for folder in folders]
        self.running, self.outcomes, self.stop_reason, self.is_closed = [], [], None, False
        self.refuses, self.refusal = False, None

    @property
    def is_running(self):
        return bool(self.running)

    def next(self):
        if self.stop_reason or not self.jobs:
            return None
        self.running.append(self.jobs.pop(0))
        return self.running[-1]

    def ended(self, job, outcome):
        if self.refuses:
            raise OSError("No space left on device")
        self.running.remove(job)
        self.outcomes.append(outcome)

    def stop(self, reason):
        self.stop_reason = reason
        return list(self.running)

    def close(self):
        self.is_closed = True

    def can_stop_early(self, job):
        return False

    def seconds_per_epoch(self, job):
        return None

    def end_by(self, job):
        return None


def adapter(tmp_path, *names, **more):
    loop = Played(*(tmp_path / "trials" / name for name in names))
    searcher = LoopSearcher(
        loop,
        trials=tmp_path / "trials",
        worker=lambda config: WorkerSettings(project_root="/"),
        request=lambda config: {"CPU": 1.0},
        **more,
    )
    return searcher, loop


def test_a_job_is_a_trial_of_tunes_that_is_named_after_its_folder(tmp_path):
    searcher, loop = adapter(tmp_path, "t0001", "t0001/error")
    assert searcher.suggest("a")["trial_id"] == "t0001"
    assert searcher.suggest("b")["trial_id"] == "t0001-error"
    loop.jobs.append(Job(config=RunConfig().to_dict(), run_dir=str(tmp_path / "control"), threads=1))
    assert searcher.suggest("c")["trial_id"] == "control"


def test_a_workers_outcome_is_handed_to_the_loop_once(tmp_path):
    searcher, loop = adapter(tmp_path, "t0001")
    searcher.suggest("a")
    searcher.on_trial_complete("a", {OUTCOME: json.dumps({"state": "complete", "val_mse": 0.5})})
    searcher.on_trial_complete("a", {OUTCOME: json.dumps({"state": "failed"})})
    assert loop.outcomes == [{"state": "complete", "val_mse": 0.5}]


def test_the_search_goes_on_while_a_job_may_bring_more_and_is_finished_after_the_last(tmp_path):
    searcher, _ = adapter(tmp_path, "t0001")
    searcher.suggest("a")
    assert searcher.suggest("b") is None
    searcher.on_trial_complete("a", {OUTCOME: json.dumps({"state": "complete"})})
    assert searcher.suggest("b") == Searcher.FINISHED


def test_a_trial_that_is_stopped_at_its_first_report_has_the_values_of_that_report(tmp_path):
    searcher, loop = adapter(tmp_path, "t0001")
    searcher.suggest("a")
    searcher.on_trial_complete("a", {"samples": 64, "val_mse": 0.7, "seconds_per_epoch": 12.0, IS_CONTENDED: 1})
    (outcome,) = loop.outcomes
    assert (outcome["state"], outcome["val_mse"], outcome["train_samples"]) == ("stopped_early", 0.7, 64)
    assert outcome["timing_quality"] == "contended"
    assert outcome["error"].startswith("Stopped at the rung of 64 training windows")


def test_a_job_whose_actor_died_has_failed(tmp_path):
    searcher, loop = adapter(tmp_path, "t0001")
    searcher.suggest("a")
    searcher.on_trial_complete("a", error=True)
    assert loop.outcomes[0]["state"] == "failed"
    assert "The process that watched the worker died" in loop.outcomes[0]["error"]


def test_a_job_whose_folder_is_not_there_yet_can_be_told_to_stop(tmp_path):
    searcher, loop = adapter(tmp_path, "t0001")
    folder = Path(loop.jobs[0].run_dir)
    searcher.suggest("a")
    assert not folder.exists()
    searcher.stop("enough", now=True)
    assert TrialFolder(folder).stop.read_text() == "now:enough"


def test_what_an_earlier_run_of_a_folder_was_told_is_forgotten(tmp_path):
    searcher, loop = adapter(tmp_path, "t0001")
    folder = Path(loop.jobs[0].run_dir)
    ask_to_stop(folder, "earlier")
    searcher.suggest("a")
    assert not TrialFolder(folder).stop.exists()


def test_a_job_that_is_handed_out_while_the_search_is_ended_is_told_so(tmp_path):
    searcher, loop = adapter(tmp_path, "t0001")
    folder = Path(loop.jobs[0].run_dir)
    loop.can_stop_early = lambda job: bool(searcher.stop("enough"))
    searcher.suggest("a")
    assert TrialFolder(folder).stop.read_text() == "enough"


@pytest.mark.parametrize("name", ["t0001", "t0002"])
def test_a_row_that_cannot_be_written_breaks_the_search_off_and_says_why(tmp_path, name):
    searcher, loop = adapter(tmp_path, name)
    searcher.suggest("a")
    loop.refuses = True
    searcher.on_trial_complete("a", {OUTCOME: json.dumps({"state": "complete"})})
    assert searcher.failure == f"{name} could not be recorded (OSError: No space left on device)"
    assert searcher.failure in loop.stop_reason


def test_what_tune_leaves_without_an_end_is_ended_with_the_search(tmp_path):
    searcher, loop = adapter(tmp_path, "t0001")
    searcher.suggest("a")
    searcher.stop("enough")
    searcher.close()
    assert loop.outcomes[0]["state"] == "interrupted"
    assert loop.is_closed


def test_a_refused_baseline_ends_the_search_and_the_trials_beside_it(tmp_path):
    searcher, loop = adapter(tmp_path, "t0001", "t0002", "t0003")
    searcher.suggest("a")
    searcher.suggest("b")
    loop.refusal = "The baseline cannot be trained: the weights are damaged."
    searcher.on_trial_complete("a", {OUTCOME: json.dumps({"state": "failed", "error": "the weights are damaged"})})
    assert "damaged" in TrialFolder(tmp_path / "trials" / "t0002").stop.read_text()
    assert searcher.suggest("c") == Searcher.FINISHED
    assert searcher.failure is None
