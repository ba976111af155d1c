"""What the searcher hands out and records; Tune's side is played by the tests."""

import json
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from search.decide.confirmation import Confirmation
from search.decide.ledger import Ledger
from search.decide.retiming import Retiming
from search.decide.samplers import make_sampler
from search.decide.study import SearchStudy, StudyOptions
from search.tune.searcher import Limits, StudySearcher
from search.tune.trainable import IS_CONTENDED, OUTCOME, STOP_FILE, ask_to_stop
from search.tune.worker_process import WorkerSettings
from spaces import Knob, Space
from timellm.contract.config import RunConfig
from timellm.contract.job import Job
from timellm.contract.layout import RunFolder

SPACE = Space(
    name="test",
    knobs=(Knob(name="batch_size", values=(8, 16, 32)), Knob(name="llm_layers", values=(1, 2))),
    baseline={"batch_size": 32, "llm_layers": 2},
)


class Tune:
    """Asks a searcher for trials, one at a time, and ends them."""

    def __init__(self, folder, **limits):
        study = SearchStudy(SPACE, StudyOptions(name="t", sampler=make_sampler("random", SPACE, 0)))
        self.ledger, self.notes, self.asked = Ledger(RunFolder(folder), 0.05), [], 0
        self.study = study.study
        self.searcher = StudySearcher(
            study=study,
            ledger=self.ledger,
            folder=RunFolder(folder),
            worker=lambda config: WorkerSettings(project_root="/"),
            make_job=lambda config, folder: Job(config=config.to_dict(), run_dir=str(folder.path), threads=1),
            request=lambda config: {"CPU": 1.0},
            make_config=lambda proposal: RunConfig(**proposal.settings),
            limits=Limits(**limits),
            confirmation=Confirmation(SPACE, self.ledger, 0, 0, study.new_trial_id),
        )
        self.searcher.on_note = lambda note, is_kept: self.notes.append(note)

    def ask(self):
        self.asked += 1
        return self.searcher.suggest(str(self.asked))

    def end(self, quality="clean", state="complete", seconds=10.0, mse=0.5):
        outcome = {"state": state, "val_mse": mse, "seconds_per_epoch": seconds, "timing_quality": quality}
        outcome |= {"total_seconds": 1.0}
        self.searcher.on_trial_complete(str(self.asked), {OUTCOME: json.dumps(outcome)})

    def told(self):
        ended = [trial for trial in self.study.trials if trial.state == TrialState.COMPLETE]
        return {trial.user_attrs["trial_id"]: trial.values for trial in ended}


def test_a_disturbed_trial_is_run_again_at_once_and_the_clean_timing_counts(tmp_path):
    tune = Tune(tmp_path, num_trials=2)
    first = tune.ask()
    tune.end("contended", seconds=30.0)
    assert tune.told() == {}
    second = tune.ask()
    assert (second["trial_id"], second["job"]["config"]) == ("t0001", first["job"]["config"])
    assert second["job"]["run_dir"] == first["job"]["run_dir"] + "/retimed"
    assert not second["can_stop_early"]
    tune.end("clean", seconds=20.0)
    assert [(row["trial_id"], row["timing_quality"]) for row in tune.ledger.rows] == [("t0001", "clean")]
    assert tune.ledger.rows[0]["seconds_per_epoch"] == 20.0
    assert tune.told() == {"t0001": [0.5, 20.0]}
    assert "the second time counts (trials/t0001/retimed)" in tune.notes[-1]
    assert tune.ask()["trial_id"] == "t0002"
    tune.end()
    assert tune.ask() == Searcher.FINISHED


@pytest.mark.parametrize("ending", [{"quality": "contended"}, {"state": "failed"}, {"state": "interrupted"}])
def test_a_second_timing_that_is_not_clean_changes_nothing(tmp_path, ending):
    tune = Tune(tmp_path)
    tune.ask()
    tune.end("contended", seconds=30.0)
    tune.ask()
    tune.end(**{"quality": "clean", "seconds": 40.0, **ending})
    assert [row["seconds_per_epoch"] for row in tune.ledger.rows] == [30.0]
    assert tune.ledger.rows[0]["timing_quality"] == "contended"
    assert tune.told() == {"t0001": [0.5, 30.0]}
    assert "the first time counts" in tune.notes[-1]


def test_under_lasting_load_one_trial_is_timed_again_until_one_is_clean(tmp_path):
    tune = Tune(tmp_path)
    names = []
    for quality in ("contended", "contended", "contended", "clean", "contended", "clean"):
        names.append(tune.ask()["trial_id"])
        tune.end(quality)
    assert names == ["t0001", "t0001", "t0002", "t0003", "t0004", "t0004"]


def test_only_complete_trials_are_timed_again():
    assert not Retiming().is_wanted({"state": "stopped_early", "timing_quality": "contended"})
    assert not Retiming().is_wanted({"state": "failed", "timing_quality": "contended"})


def test_no_trial_is_timed_again_when_the_time_is_over(tmp_path):
    tune = Tune(tmp_path, deadline=time.time() + 0.3)
    tune.ask()
    tune.end("contended")
    assert tune.notes == []
    assert tune.told() == {"t0001": [0.5, 10.0]}
    assert tune.ask() == Searcher.FINISHED


def test_a_search_that_is_stopped_tells_the_study_of_the_first_timing(tmp_path):
    tune = Tune(tmp_path)
    tune.ask()
    tune.end("contended")
    tune.searcher.stop("Enough.")
    assert tune.ask() == Searcher.FINISHED
    tune.searcher.close()
    assert tune.told() == {"t0001": [0.5, 10.0]}
    assert not [trial for trial in tune.study.trials if trial.state == TrialState.RUNNING]


def test_a_second_timing_is_no_trial_of_its_own_beside_others(tmp_path):
    tune = Tune(tmp_path, num_trials=2)
    tune.ask()
    tune.end("contended")
    tune.ask()
    assert tune.ask()["trial_id"] == "t0002"


def test_a_trial_that_is_stopped_at_its_first_report_has_the_values_of_that_report(tmp_path):
    tune = Tune(tmp_path)
    tune.ask()
    report = {"samples": 64, "val_mse": 0.7, "val_mae": 0.6, "seconds_per_epoch": 12.0, IS_CONTENDED: 1}
    tune.searcher.on_trial_complete("1", report)
    (row,) = tune.ledger.rows
    assert (row["state"], row["train_samples"], row["timing_quality"]) == ("stopped_early", 64, "contended")
    assert row["error"].startswith("Stopped at the rung of 64 training windows")
    assert tune.told() == {"t0001": [0.7, 12.0]}


def test_a_trial_whose_actor_died_has_failed(tmp_path):
    tune = Tune(tmp_path)
    tune.ask()
    tune.searcher.on_trial_complete("1", error=True)
    assert tune.ledger.rows[0]["state"] == "failed"
    assert "The process that watched the worker died" in tune.ledger.rows[0]["error"]


def test_a_trial_whose_folder_is_not_there_yet_can_be_told_to_stop(tmp_path):
    tune = Tune(tmp_path)
    folder = Path(tune.ask()["job"]["run_dir"])
    assert not folder.exists()
    tune.searcher.stop("enough")
    assert (folder / STOP_FILE).read_text() == "enough"


def test_what_an_earlier_trial_of_a_folder_was_told_is_forgotten(tmp_path):
    folder = RunFolder(tmp_path).trial("t0001").path
    ask_to_stop(folder, "earlier")
    assert Path(Tune(tmp_path).ask()["job"]["run_dir"]) == folder
    assert not (folder / STOP_FILE).exists()


def test_a_trial_that_is_handed_out_while_the_search_is_ended_is_told_so(tmp_path, monkeypatch):
    tune = Tune(tmp_path)
    monkeypatch.setattr("search.tune.searcher.forget_stop", lambda folder: tune.searcher.stop("enough"))
    assert (Path(tune.ask()["job"]["run_dir"]) / STOP_FILE).read_text() == "enough"
