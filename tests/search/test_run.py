"""Whole searches with real Ray, real Optuna storage and a worker that computes its results from a formula."""

import dataclasses
import json
import signal
import threading
import time
import urllib.request
from wsgiref.simple_server import make_server

import optuna
import optuna_dashboard
import pytest
from optuna.trial import TrialState

from results import RunFolder, load_trials, pareto_front
from search.run import main
from tests.search.searching import kill_tree, search, start, workers
from tests.waiting import wait_for
from timellm.contract.job import Job
from timellm.contract.manifest import PlannedFidelity


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A search of the whole smoke space with one kind of attention, with faults in it."""
    runs = tmp_path_factory.mktemp("runs")
    faults = {
        "batch_size=4,precision=bf16,llm_layers=2,prompt_prefix=reuse": "sigkill",
        "batch_size=4,precision=fp32,llm_layers=2,prompt_prefix=reuse": "crash",
        "batch_size=4,precision=fp32,llm_layers=1,prompt_prefix=reuse": "disk full",
        "batch_size=8,precision=fp32,llm_layers=1,prompt_prefix=reuse": "out of memory",
        "batch_size=8,precision=bf16,llm_layers=1,prompt_prefix=recompute": "diverged",
        "batch_size=8,precision=bf16,llm_layers=2,prompt_prefix=reuse": "bad input",
        "batch_size=4,precision=bf16,llm_layers=1,prompt_prefix=recompute": "hang",
    }
    arguments = ("--name", "whole", "--set", "attention=eager", "--trial_timeout", "2", "--confirm", "2")
    return search(runs, *arguments, faults=faults, seconds=0.05), RunFolder(runs / "whole")


def test_a_search_tries_the_whole_space_and_ends_with_status_0(finished):
    ended, folder = finished
    assert ended.returncode == 0, ended.stderr
    assert "every configuration of the space has been tried" in ended.stdout
    trials = load_trials(folder.path)
    tried = trials[trials["source"] != "confirm"]
    assert len(tried) == 16
    knobs = [f"config/{name}" for name in ("precision", "batch_size", "llm_layers", "prompt_prefix")]
    assert not tried[knobs].duplicated().any()
    assert list(trials["source"][:2]) == ["baseline", "plan-a"]
    assert trials["trial_id"].is_unique


def test_every_fault_is_a_row_with_its_state_and_what_to_do(finished):
    _, folder = finished
    trials = load_trials(folder.path).set_index("state")
    assert trials.loc["out_of_memory", "error"] == "Memory ended."
    assert trials.loc["diverged", "error"] == "The loss must stay finite."
    failed = " ".join(trials.loc["failed", "error"])
    assert "The worker was killed by SIGKILL from outside." in failed
    assert "The worker ended with status 3: RuntimeError: the model is broken" in failed
    assert "seq_len must fit the split." in failed
    assert "limit of --trial_timeout" in failed
    assert "File too large" in failed
    assert len(trials.loc["failed"]) == 5


def test_the_study_agrees_with_the_table(finished):
    _, folder = finished
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{folder.study}")
    trials = load_trials(folder.path)
    told = {
        trial.user_attrs["trial_id"]: trial
        for trial in study.trials
        if trial.state == TrialState.COMPLETE and "trial_id" in trial.user_attrs
    }
    assert not [trial for trial in study.trials if trial.state in (TrialState.RUNNING, TrialState.WAITING)]
    tried = trials[trials["source"] != "confirm"]
    assert set(told) == set(tried["trial_id"])
    for _, row in tried.iterrows():
        trial = told[row["trial_id"]]
        assert trial.user_attrs["state"] == row["state"]
        if row["state"] == "complete":
            assert trial.values == pytest.approx([row["val_mse"], row["seconds_per_epoch"]])
        assert all(value <= 0 for value in trial.constraints.values()) == (row["state"] == "complete")


def test_the_best_are_confirmed_with_other_seeds_and_the_baseline_between_them(finished):
    _, folder = finished
    trials = load_trials(folder.path)
    confirmed = trials[trials["source"] == "confirm"]
    assert len(confirmed) == 2 * 3
    assert set(confirmed["seed"]) == {2022, 2023}
    assert (confirmed["config/llm_layers"] == 2).any()
    front = pareto_front(trials)
    assert (front["confirmations"] >= 2).any()


def test_the_run_folder_holds_all_that_was_promised(finished):
    ended, folder = finished
    manifest = folder.read_manifest()
    assert manifest.status == "finished"
    assert manifest.baseline_trial_id == "t0001"
    assert manifest.fidelity == PlannedFidelity(kind="samples", train_samples=32, val_samples=32)
    assert manifest.reference_point["val_mse"] > 0
    assert manifest.space.name == "smoke"
    assert manifest.versions["optuna"]
    assert manifest.run_config["pred_len"] == 24
    for path in (folder.report, folder.recommended_command, folder.trials_csv, folder.trials_parquet, folder.study):
        assert path.is_file(), path
    assert not list(folder.path.glob("study.db-*"))
    assert list(folder.ray.glob("*/t0001/events.out.tfevents*"))
    assert "Pareto front" in ended.stdout
    assert str(folder.recommended_command) in ended.stdout
    assert not list(workers(folder.path))


def test_optuna_dashboard_shows_the_study_and_its_trials(finished):
    _, folder = finished
    application = optuna_dashboard.wsgi(f"sqlite:///{folder.study}")
    with make_server("127.0.0.1", 0, application) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = f"http://127.0.0.1:{server.server_port}"
        with urllib.request.urlopen(f"{page}/dashboard", timeout=30) as answer:
            assert answer.status == 200
        (summary,) = get_json(f"{page}/api/studies")["study_summaries"]
        study = get_json(f"{page}/api/studies/{summary['study_id']}")
        server.shutdown()
    assert (summary["study_name"], summary["directions"]) == ("whole", ["minimize", "minimize"])
    shown = [{pair["key"]: pair["value"] for pair in trial["user_attrs"]} for trial in study["trials"]]
    trials = load_trials(folder.path)
    assert {one["trial_id"] for one in shown if "state" in one} == set(
        trials.loc[trials["source"] != "confirm", "trial_id"]
    )


def get_json(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def test_a_job_is_written_as_the_contract_says(finished):
    _, folder = finished
    job = json.loads(folder.trial("t0001").job.read_text())
    assert set(job) == {field.name for field in dataclasses.fields(Job)}
    assert job["clock"] == "time"
    assert job["config"]["batch_size"] == 8
    assert job["run_dir"] == str(folder.trial("t0001").path)
    assert f"threads {job['threads']}" in folder.trial("t0001").log.read_text()


def test_a_name_is_never_reused_silently(finished, capsys):
    _, folder = finished
    before = folder.trials_csv.read_bytes()
    assert main(["--space", "smoke", "--runs_dir", str(folder.path.parent), "--name", "whole"]) == 2
    assert "--name must be new" in (errors := capsys.readouterr().err)
    assert "--resume whole" in errors
    assert errors.count("\n") == 1
    assert folder.trials_csv.read_bytes() == before


@pytest.mark.slow
def test_resume_goes_on_after_the_driver_was_killed(tmp_path):
    process = start(tmp_path, "--name", "r", "--num_trials", "6", seconds=0.7)
    folder = RunFolder(tmp_path / "r")
    try:
        wait_for(lambda: folder.trial("t0003").events.is_file())
    finally:
        process.kill()
        process.wait()
    wait_for(lambda: not list(workers(folder.path)), 30)
    before = load_trials(folder.path)
    ended = search(tmp_path, "--resume", "r", "--name", "r", seconds=0.1)
    assert ended.returncode == 0, ended.stderr
    after = load_trials(folder.path)
    assert list(after["trial_id"]) == [f"t000{i}" for i in range(1, 7)]
    assert list(after["state"]) == ["complete"] * 6
    assert len(before) in (2, 3)
    same = after.set_index("trial_id").loc[before["trial_id"], "started_at"]
    assert list(same) == list(before["started_at"])
    more = search(tmp_path, "--resume", "r", "--num_trials", "7", seconds=0.1)
    assert more.returncode == 0, more.stderr
    assert len(load_trials(folder.path)) == 7


def test_a_changed_search_is_not_resumed(finished, capsys):
    _, folder = finished
    arguments = ["--runs_dir", str(folder.path.parent), "--resume", "whole"]
    assert main([*arguments, "--sampler", "gp"]) == 2
    assert "--sampler was random and is gp" in capsys.readouterr().err
    original = folder.manifest.read_text()
    changed = json.loads(original)
    changed["space"]["knobs"][0]["values"] = ["fp32", "fp16"]
    folder.manifest.write_text(json.dumps(changed))
    try:
        assert main(arguments) == 2
    finally:
        folder.manifest.write_text(original)
    errors = capsys.readouterr().err
    assert "the space differs in knobs.precision.values: it was fp32, fp16 and is fp32, bf16" in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(("presses", "trial"), [(1, "t0001"), (2, "t0002")])
def test_ctrl_c_ends_in_good_order_and_a_second_one_at_once(tmp_path, presses, trial):
    faults = {"precision=bf16": "hang"} if presses == 2 else {}
    process = start(tmp_path, "--name", "c", seconds=0.1 if presses == 2 else 30, faults=faults)
    folder = RunFolder(tmp_path / "c")
    try:
        wait_for(lambda: folder.trial(trial).events.is_file() and "training" in folder.trial(trial).events.read_text())
        process.send_signal(signal.SIGINT)
        if presses == 2:
            time.sleep(0.5)
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    finally:
        kill_tree(process.pid)
    assert process.returncode == 130, errors
    trials = load_trials(folder.path).set_index("trial_id")
    assert trials.loc[trial, "state"] == "interrupted"
    assert "interrupted by the user" in trials.loc[trial, "error"]
    assert folder.read_manifest().status == "interrupted"
    assert "Traceback" not in errors
    assert not list(workers(folder.path))


def test_a_search_ends_within_its_time_budget_and_a_trials_grace(tmp_path):
    ended = search(tmp_path, "--name", "b", "--time_budget", "30s", seconds=3)
    assert ended.returncode == 0, ended.stderr
    manifest = RunFolder(tmp_path / "b").read_manifest()
    assert manifest.elapsed_seconds < 30 + 3 + 30  # the last 30 are for other load
    assert 1 <= len(load_trials(tmp_path / "b")) <= 10
    reasons = ("the time that is left is too short for another trial", "nothing is left to try that is new and fits")
    assert any(reason in ended.stdout for reason in reasons), ended.stdout


def test_auto_fidelity_plans_from_a_measured_baseline(tmp_path):
    arguments = ("--name", "a", "--fidelity", "auto", "--num_trials", "2", "--time_budget", "60s")
    ended = search(tmp_path, *arguments, seconds=0.05)
    assert ended.returncode == 0, ended.stderr
    manifest = RunFolder(tmp_path / "a").read_manifest()
    assert manifest.fidelity.train_samples % 32 == 0
    assert "Every error is that of" in ended.stdout
    assert len(load_trials(tmp_path / "a")) == 2
    dry = search(tmp_path, "--fidelity", "auto", "--num_trials", "2", "--time_budget", "60s", "--dry_run")
    assert dry.returncode == 0, dry.stderr
    assert "In run a, with the same baseline and machine" in dry.stdout


def test_poor_trials_are_stopped_at_a_rung_and_say_so(tmp_path):
    arguments = ("--name", "h", "--scheduler", "moasha", "--fidelity", "128", "--num_trials", "12")
    ended = search(tmp_path, *arguments, seconds=0.3)
    assert ended.returncode == 0, ended.stderr
    trials = load_trials(tmp_path / "h")
    stopped = trials[trials["state"] == "stopped_early"]
    assert len(trials) == 12
    assert set(trials["state"]) == {"complete", "stopped_early"}
    assert len(stopped) <= 9
    assert set(stopped["source"]) == {"sampler"}
    assert set(stopped["train_samples"]) <= {32, 64}
    assert stopped["error"].str.contains("Stopped at the rung of").all()
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/h/study.db")
    told = {trial.user_attrs.get("trial_id"): trial.values for trial in study.trials}
    for _, row in stopped.iterrows():
        assert told[row["trial_id"]] == pytest.approx([row["val_mse"], row["seconds_per_epoch"]])


def test_a_disturbed_trial_is_timed_again_and_the_clean_timing_counts(tmp_path):
    faults = {"batch_size=8,llm_layers=2": "contended once"}
    ended = search(tmp_path, "--name", "t", "--num_trials", "3", faults=faults, seconds=0.05)
    assert ended.returncode == 0, ended.stderr
    folder, trials = RunFolder(tmp_path / "t"), load_trials(tmp_path / "t").set_index("trial_id")
    assert list(trials.index) == ["t0001", "t0002", "t0003"]
    assert set(trials["timing_quality"]) == {"clean"}
    assert trials["error"].isna().all()
    first = json.loads(folder.trial("t0001").result.read_text())
    assert first["timing_quality"] == "contended"
    assert trials.loc["t0001", "seconds_per_epoch"] == pytest.approx(first["seconds_per_epoch"] / 1.5)
    assert (folder.trial("t0001").path / "retimed" / "result.json").is_file()
    assert "t0001: other load was noticed while it was timed, so it is timed again." in ended.stdout
    note = "t0001 was timed twice, the first time beside other load; the second time counts (trials/t0001/retimed)."
    assert note in folder.read_manifest().notes
    told = told_values(folder)
    assert told["t0001"] == pytest.approx(list(trials.loc["t0001", ["val_mse", "seconds_per_epoch"]]))


def told_values(folder):
    """What the study was told of each trial, by its name; a trial is told once."""
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{folder.study}")
    assert not [trial for trial in study.trials if trial.state == TrialState.RUNNING]
    told = [trial for trial in study.trials if "state" in trial.user_attrs and trial.state == TrialState.COMPLETE]
    values = {trial.user_attrs["trial_id"]: trial.values for trial in told}
    assert len(values) == len(told)
    return values


def test_nothing_usable_is_status_1(tmp_path):
    ended = search(tmp_path, "--name", "n", "--num_trials", "2", faults={"llm_layers=2": "crash"}, seconds=0.05)
    assert ended.returncode == 1, ended.stderr
    assert "No trial was completed" in ended.stdout
    assert list(load_trials(tmp_path / "n")["state"]) == ["failed", "failed"]


def test_a_dry_run_trains_and_writes_nothing(tmp_path):
    ended = search(tmp_path / "runs", "--dry_run")
    assert ended.returncode == 0, ended.stderr
    assert "32 configurations" in ended.stdout
    assert "baseline: " in ended.stdout
    assert "Nothing was trained." in ended.stdout
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--space", "sped"], "--space must be one of"),
        (["--set", "batchsize=3"], "batchsize is not a knob; did you mean batch_size"),
        (["--resume", "nothing"], "--resume must name a run"),
        (["--resume", ""], "--resume must not be empty, got ''. Leave it out."),
        (["--name", ""], "--name must not be empty, got ''. Leave it out."),
        (["--runs_dir", "~nobody-of-that-name/runs"], "--runs_dir must have a user's name after ~"),
        (["--name", "a/b"], "--name must be letters"),
        (["--name", "a", "--resume", "b"], "--name and --resume must agree"),
        (["--fidelity", "some"], "--fidelity must be full, auto or a number"),
        (["--data", "custom", "--data_path", "nowhere.csv"], "nowhere.csv"),
        (["--set", "llm_layers=99"], "llm_layers must be at most 30"),
        (["--set", "d_ff=5000"], "d_ff"),
        (["--llm_model", "nothing-of-that-name"], "nothing-of-that-name"),
        (["--gpus_per_trial", "9"], "--gpus_per_trial must be at most"),
    ],
)
def test_wrong_input_is_one_line_before_anything_starts(tmp_path, capsys, arguments, message):
    status = main(["--space", "smoke", "--runs_dir", str(tmp_path / "runs"), *arguments])
    errors = capsys.readouterr().err
    assert status == 2
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "runs").exists()
