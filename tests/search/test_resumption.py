"""What a resumed search finds: an edited table, the flags and the plan of its first session."""

import dataclasses
import os
from pathlib import Path

import optuna
import pytest

from results import RunFolder, load_trials
from search.decide.propose.storage import open_storage
from search.decide.propose.study import Proposal
from search.decide.spend.plan import Plan
from search.setup import preparation
from search.setup.options import parse
from search.setup.resumption import earlier_options, earlier_plan, open_run
from timellm.contract.errors import InputError
from timellm.contract.manifest import Manifest

ARGUMENTS = ("--space", "smoke", "--name", "n", "--fidelity", "64", "--num_trials", "4")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    options, _ = parse([*ARGUMENTS, "--runs_dir", str(tmp_path_factory.mktemp("runs"))])
    return preparation.prepare(options, preparation.run_folder(options))


@pytest.fixture(scope="module")
def options_written(prepared, tmp_path_factory):
    """A run folder of which only the manifest counts."""
    folder = RunFolder(tmp_path_factory.mktemp("options") / "n")
    open_run(dataclasses.replace(prepared, folder=folder))
    return folder


@pytest.fixture
def begun(prepared, tmp_path):
    """A search with one row that was killed."""
    folder = RunFolder(tmp_path / "n")
    _, ledger = open_run(dataclasses.replace(prepared, folder=folder))
    proposal = Proposal("t0001", "baseline", prepared.space.settings(prepared.space.baseline))
    ledger.record(proposal, prepared.baseline, {"state": "complete", "val_mse": 0.5, "seconds_per_epoch": 9.0})
    optuna.create_study(study_name="n", storage=open_storage(folder.study), directions=["minimize"] * 2)
    return folder


def resumed(prepared, folder):
    options = dataclasses.replace(prepared.options, resume="n", name=None)
    return dataclasses.replace(prepared, folder=folder, options=options)


def test_an_edited_table_is_gone_on_with_and_the_manifest_and_a_line_say_so(prepared, begun, capsys):
    written = begun.trials_parquet.stat().st_mtime
    begun.trials_csv.write_text(begun.trials_csv.read_text().replace("0.5", "0.25"))
    os.utime(begun.trials_csv, (written + 10, written + 10))
    manifest, ledger = open_run(resumed(prepared, begun))
    said = f"{begun.trials_csv} was edited: it differs from trials.parquet. It was changed last, so it is used."
    assert capsys.readouterr().err.splitlines() == [said]
    assert list(manifest.values.notes)[-1] == begun.read_manifest().notes[-1] == said
    assert [row["val_mse"] for row in ledger.rows] == [0.25]
    assert list(load_trials(begun.path)["val_mse"]) == [0.25]  # both files hold it now, and nothing warns
    open_run(resumed(prepared, begun))
    assert capsys.readouterr().err == ""


def test_an_untouched_table_is_gone_on_with_in_silence(prepared, begun, capsys):
    manifest, ledger = open_run(resumed(prepared, begun))
    assert capsys.readouterr().err == ""
    assert list(manifest.values.notes) == list(prepared.notes)
    assert [row["trial_id"] for row in ledger.rows] == ["t0001"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--sampler", "random"], "--sampler was gp and is random"),
        (["--fidelity", "128"], "--fidelity was 64 and is 128"),
        (["--objective", "joint"], "--objective was pareto and is joint"),
        (["--time_weight", "0.2"], "--time_weight was 0.05 and is 0.2"),
        (["--seed", "1"], "--seed was 2021 and is 1"),
        (["--clocks", "together"], "--clocks was "),
        (["--space", "speed"], "--space was smoke and is speed"),
        (["--max_concurrent", "2"], "--max_concurrent was "),
        (["--set", "precision=fp32"], "--set was "),
    ],
)
def test_a_flag_that_makes_it_another_search_is_refused(options_written, flags, said):
    options, given = parse(["--resume", "n", *flags])
    with pytest.raises(InputError, match="--resume continues the same search, but") as caught:
        earlier_options(options, given, options_written)
    assert said in str(caught.value)
    assert str(caught.value).endswith("Start a new search for that, with another --name.")


def test_limits_and_what_belongs_to_a_session_may_change_and_all_else_stays(options_written):
    options, given = parse(["--resume", "n", "--num_trials", "9", "--time_budget", "1h", "--confirm", "2"])
    found = earlier_options(options, given, options_written)
    assert (found.num_trials, found.time_budget, found.confirm) == (9, 3600.0, 2)
    assert (found.space, found.fidelity, found.resume) == ("smoke", "64", "n")
    same, given = parse(["--resume", "n", "--sampler", "gp", "--seed", "2021"])
    assert earlier_options(same, given, options_written).num_trials == 4


def test_all_flags_that_differ_are_named_at_once(options_written):
    options, given = parse(["--resume", "n", "--sampler", "random", "--seed", "1"])
    with pytest.raises(InputError) as caught:
        earlier_options(options, given, options_written)
    assert len(caught.value.problems) == 2


def plan_of(**values):
    return earlier_plan(Manifest.from_dict({"name": "n", **values}), RunFolder(Path("runs/n")))


def test_the_plan_of_the_first_session_is_gone_on_with(prepared):
    fidelity = {"kind": "samples", "train_samples": 64, "val_samples": 32}
    plan = plan_of(fidelity=fidelity, expected={"baseline_seconds": 3.5, "trials": 12}, clocks="apart")
    assert isinstance(plan, Plan)
    assert (plan.fidelity.train_samples, plan.trial_seconds, plan.trials) == (64, 3.5, 12)
    assert plan.spending is not None
    assert plan_of(fidelity=fidelity, clocks="together").spending is None


@pytest.mark.parametrize("fidelity", [None, {}])
def test_a_search_that_was_ended_before_its_plan_makes_one(fidelity):
    assert plan_of(fidelity=fidelity) is None


@pytest.mark.parametrize(
    "values",
    [
        {"fidelity": {"kind": "samples", "samples": 64}},
        {"fidelity": {"kind": "full", "train_samples": None, "val_samples": None}, "clocks": "apart",
         "expected": {"spending": {"coffee": 1}}},
    ],
)  # fmt: skip
def test_a_plan_that_no_search_has_written_is_refused(values):
    with pytest.raises(InputError, match=r"The plan in .*/runs/n/manifest.json must be a search's own, but ") as caught:
        plan_of(**values)
    assert "__init__" not in str(caught.value)
