import io
import json
import math
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from results.analysis.table import load_trials, write_trials
from results.report import main
from tests.results.synthetic import edit_manifest, make_rows, make_run

SCRIPT = Path(__file__).parents[2] / "results" / "report.py"


@pytest.fixture
def folder(tmp_path):
    return make_run(tmp_path / "t1", make_rows(20))


def test_the_script_runs_from_any_folder_without_being_installed(folder, tmp_path):
    done = subprocess.run(
        [sys.executable, "-P", SCRIPT, "report", folder.path], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == str(folder.report)
    assert done.stderr == ""
    assert folder.recommended_command.is_file()


def test_report_rebuilds_the_scores_of_the_table(folder):
    write_trials(folder, [{**row, "is_pareto": True, "joint_score": None} for row in make_rows(20)])

    assert main(["report", str(folder.path)]) == 0

    frame = load_trials(folder.path)
    assert 0 < frame["is_pareto"].sum() < 20
    assert frame["joint_score"].notna().any()


def test_report_leaves_the_table_of_a_running_search_alone(tmp_path):
    folder = make_run(tmp_path / "t1", make_rows(5), status="running")
    before = folder.trials_parquet.read_bytes()

    assert main(["report", str(folder.path)]) == 0

    assert folder.trials_parquet.read_bytes() == before


def test_report_repairs_a_broken_parquet_file(folder, capsys):
    folder.trials_parquet.write_bytes(b"broken")

    assert main(["report", str(folder.path)]) == 0

    assert len(pd.read_parquet(folder.trials_parquet)) == 20
    assert capsys.readouterr().err.count("warning: ") == 1


def test_report_scores_with_a_time_weight_of_zero(tmp_path):
    folder = make_run(tmp_path / "t1", make_rows(20), time_weight=0.0)

    assert main(["report", str(folder.path)]) == 0

    frame = load_trials(folder.path)
    base = frame.loc[frame["source"] == "baseline", "val_mse"].iloc[0]
    scored = frame[frame["joint_score"].notna()]
    assert scored["joint_score"].to_list() == pytest.approx([math.log(mse / base) for mse in scored["val_mse"]])
    assert "At time weight 0," in folder.recommendation("balanced").reasons.read_text()


@pytest.mark.parametrize("status", ["finished", "running"])
def test_report_refuses_a_time_weight_that_is_none(tmp_path, capsys, status):
    folder = make_run(tmp_path / "t1", make_rows(3), status=status)
    edit_manifest(folder, time_weight="x")

    assert main(["report", str(folder.path)]) == 2
    said = capsys.readouterr().err
    assert f"{folder.manifest}: time_weight must be a finite number from 0 to 100, got 'x'. Write the weight" in said


@pytest.mark.parametrize("command", ["table", "front", "export"])
def test_a_failed_baseline_is_said_beside_the_speed_ups(tmp_path, capsys, command):
    rows = make_rows(5)
    whole = make_run(tmp_path / "t1", rows)
    rows[0] |= {"state": "diverged", "seconds_per_epoch": None, "val_mse": None}
    failed = make_run(tmp_path / "t2", rows)
    note = "so speedup_vs_baseline refers to the first complete trial, t0001.\n"

    assert main([command, str(failed.path)]) == 0
    assert capsys.readouterr().err == f"note: The baseline ended as diverged, {note}"
    assert main([command, str(whole.path), str(failed.path)]) == 0
    assert capsys.readouterr().err == f"note: The baseline of t2 ended as diverged, {note}"
    assert main([command, str(whole.path)]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", ["report", "table", "front", "importance", "export"])
def test_repeated_trials_are_refused_in_one_line(folder, capsys, command):
    folder.trials_parquet.unlink()
    text = folder.trials_csv.read_text()
    folder.trials_csv.write_text(text.replace("t0003", "t0002"))

    assert main([command, str(folder.path)]) == 2

    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{folder.trials_csv} cannot be read" in error
    assert "t0002 used twice" in error


def test_table_prints_every_trial(folder, capsys):
    assert main(["table", str(folder.path), "--sort", "val_mse"]) == 0

    out = capsys.readouterr().out
    assert all(f"t{index:04d}" in out for index in range(20))
    assert out.splitlines()[0].split()[:3] == ["trial_id", "source", "state"]


def test_table_can_show_one_state(folder, capsys):
    assert main(["table", str(folder.path), "--state", "diverged"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["table", str(folder.path), "--state", "stopped_early"]) == 1


def test_front_prints_the_front_from_fast_to_slow(folder, capsys):
    assert main(["front", str(folder.path)]) == 0

    lines = capsys.readouterr().out.splitlines()[1:]
    seconds = [float(line.split()[3]) for line in lines]
    assert seconds == sorted(seconds)


def test_front_of_a_run_without_complete_trials_is_status_1(tmp_path, capsys):
    folder = make_run(tmp_path / "t1", [])

    assert main(["front", str(folder.path)]) == 1
    assert "No complete trial" in capsys.readouterr().err


def test_importance_prints_a_share_per_objective(folder, capsys):
    assert main(["importance", str(folder.path)]) == 0
    assert "prompt_prefix" in capsys.readouterr().out


def test_importance_of_too_little_is_status_1(tmp_path, capsys):
    assert main(["importance", str(make_run(tmp_path / "t1", make_rows(4)).path)]) == 1
    assert "Not enough data" in capsys.readouterr().err


def test_compare_prints_two_runs(folder, tmp_path, capsys):
    other = make_run(tmp_path / "t2", make_rows(20, seed=1))

    assert main(["compare", str(folder.path), str(other.path)]) == 0
    assert "hypervolume" in capsys.readouterr().out


def test_export_writes_what_a_reader_reads_back(folder, tmp_path, capsys):
    frame = load_trials(folder.path)

    assert main(["export", str(folder.path)]) == 0
    csv = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert main(["export", str(folder.path), "--format", "json", "--output", str(tmp_path / "x.json")]) == 0
    rows = json.loads((tmp_path / "x.json").read_text())
    assert main(["export", str(folder.path), "--format", "parquet", "--output", str(tmp_path / "x.parquet")]) == 0
    parquet = pd.read_parquet(tmp_path / "x.parquet")

    expected = frame["val_mse"].astype(float).to_numpy()
    assert csv["val_mse"].to_numpy() == pytest.approx(expected, nan_ok=True)
    assert [row["val_mse"] for row in rows][:3] == pytest.approx(expected[:3])
    assert parquet["val_mse"].astype(float).to_numpy() == pytest.approx(expected, nan_ok=True)
    assert list(csv) == list(frame) == list(parquet) == list(rows[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "nowhere"], "run folder is needed, but"),
        (["shout"], "invalid choice: 'shout'"),
        ([], "required: COMMAND"),
        (["table", "{run}", "--sort", "beauty"], "--sort must name a column, got beauty"),
        (["table", "{run}", "--state", "done"], "--state must be one of complete"),
        (["export", "{run}", "--format", "parquet"], "add --output FILE"),
        (["export", "{run}", "--output", "/nowhere/x.csv"], "cannot be written"),
        (
            ["export", "{run}", "--format", "parquet", "--output", "/nowhere/x.parquet"],
            "/nowhere/x.parquet cannot be written or read: No such file or directory",
        ),
        (["compare", "{run}"], "arguments are required: RUN"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(folder, capsys, arguments, message):
    status = main([argument.format(run=folder.path) for argument in arguments])

    error = capsys.readouterr().err
    assert status == 2
    assert message in error
    assert error.count("\n") == 1
    assert error.startswith("error: ")


def test_results_need_neither_ray_nor_torch_nor_the_rooms_beside_them():
    script = "import results.commands, sys; print(sorted({'ray', 'torch', 'search'} & set(sys.modules)))"

    done = subprocess.run(
        [sys.executable, "-c", script], cwd=SCRIPT.parents[1], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


def test_what_the_guide_expects_is_read_without_pandas_and_optuna():
    script = (
        "import results.analysis.guide, sys; print(sorted({'pandas', 'optuna', 'plotly', 'torch'} & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], cwd=SCRIPT.parents[1], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


def test_every_public_name_of_the_results_is_found_where_it_is_defined():
    import results

    assert {name for name in results.__all__ if not hasattr(results, name)} == set()
