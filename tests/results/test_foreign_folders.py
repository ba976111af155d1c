"""Run folders that are another's or were edited: what they say is data, never code, and no edit is lost in silence."""

import json
import os
import shlex
from pathlib import Path

import pandas as pd
import pytest

from results.analysis.table import load_trials
from results.report import main
from tests.results.synthetic import edit_manifest, make_rows, make_run
from timellm.contract.layout import RunFolder

HOSTILE = "x$(touch hit)`touch hit`;touch hit"


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return make_run(tmp_path / "run", make_rows(8))


def _rename(values: dict, *path: str) -> None:
    for name in path:
        values = values[name]
    values[HOSTILE] = "changed"


@pytest.mark.parametrize(
    "path",
    [("run_config",), ("run_defaults",), ("space", "fixed"), ("space", "baseline"), ("space", "plans", "plan-a")],
)
def test_a_hostile_name_of_a_setting_in_a_manifest_reaches_no_file(folder, capsys, path):
    values = json.loads(folder.manifest.read_text())
    _rename(values, *path)
    folder.manifest.write_text(json.dumps(values))

    assert main(["report", str(folder.path)]) == 2

    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "must be an object of " in said
    assert not folder.report.exists()
    assert not folder.recommended.exists()


def test_a_setting_that_no_run_has_is_no_flag_of_a_command(folder, capsys):
    edit_manifest(folder, run_config={**folder.read_manifest().run_config, "launcher": "x"})

    assert main(["report", str(folder.path)]) == 2
    assert "run_config must hold settings of a run only, got 'launcher'" in capsys.readouterr().err
    assert not folder.recommended.exists()


@pytest.mark.parametrize("old", ["config/precision", "t0003"])
@pytest.mark.parametrize("hostile", ["config/" + HOSTILE, "../../other", "t\x1b[31m", "-rf"])
def test_a_hostile_name_in_a_table_reaches_no_file(folder, capsys, old, hostile):
    if old == "config/precision":
        hostile = "config/" + hostile.removeprefix("config/")
    folder.trials_parquet.unlink()
    folder.trials_csv.write_text(folder.trials_csv.read_text().replace(old, hostile))

    assert main(["report", str(folder.path)]) == 2

    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "\x1b" not in said
    assert "letters, digits" in said
    assert not folder.recommended.exists()


@pytest.mark.parametrize(
    "command",
    [
        ["python", "-c", "import os; os.system('touch hit')"],
        ["python", "timellm/run_main.py", "--llm_path", "elsewhere"],
        ["sh", "timellm/run_main.py"],
        ["python", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2;x", "timellm/run_main.py"],
    ],
)
def test_a_command_that_no_search_writes_is_refused(folder, capsys, command):
    edit_manifest(folder, train_command=command)

    assert main(["report", str(folder.path)]) == 2
    assert "train_command must be python timellm/run_main.py" in capsys.readouterr().err


@pytest.mark.parametrize("interpreter", ["/bin/rm", "env", "/usr/bin/env python", "python; touch hit", "sh"])
def test_what_is_no_interpreter_runs_nothing(folder, capsys, interpreter):
    edit_manifest(folder, python=interpreter)

    assert main(["report", str(folder.path)]) == 2
    assert "python must be the path of a Python interpreter" in capsys.readouterr().err
    assert not folder.recommended.exists()


@pytest.mark.parametrize(
    "interpreter",
    ["python", "/opt/my env/bin/python3.13t", "C:\\py\\python.exe", "pypy3", "/usr/bin/python3-dbg", "/a/MacOS/Python"],
)
def test_an_interpreter_by_any_of_its_names_is_one(folder, interpreter):
    edit_manifest(folder, python=interpreter)
    assert main(["report", str(folder.path)]) == 0
    assert f"python={shlex.quote(interpreter)}\n" in (folder.recommended / "command.sh").read_text()


def test_values_of_a_foreign_folder_stay_values_in_every_file(folder):
    rows = make_rows(8)
    for row in rows:
        row |= {"config/prompt_description": f"it's {HOSTILE}\n<script>x</script>"}
    folder = make_run(folder.path.parent / "other", rows)
    edit_manifest(folder, name=f"n\n{HOSTILE}")

    assert main(["report", str(folder.path)]) == 0

    for script in folder.recommended.rglob("*.sh"):
        done = os.spawnlp(
            os.P_WAIT, "bash", "bash", "-c", f"cd {folder.path} && PYTHON=true TIMELLM_ROOT=. bash {script}"
        )
        assert done == 0
    assert not list(folder.path.rglob("hit"))
    assert "<script>x</script>" not in folder.report.read_text()


@pytest.mark.parametrize("value", ["--init_from=/somebody/else", "-temp", "--", "-"])
def test_a_value_that_begins_with_a_dash_is_no_flag_of_a_command(folder, value):
    """A flag of true or false has an optional value, so that one after it would be read as a flag of its own."""
    changes = {"target": value, "use_swt": value}
    edit_manifest(folder, run_config={**folder.read_manifest().run_config, **changes})

    assert main(["report", str(folder.path)]) == 0

    text = (folder.recommended / "command.sh").read_text()
    for name in changes:
        assert f"--{name}={shlex.quote(value)} \\\n" in text


def test_control_characters_of_a_table_do_not_command_a_terminal(folder, capsys):
    rows = [{**row, "source": "\x1b[31m\u202e"} for row in make_rows(3)]
    folder = make_run(folder.path.parent / "other", rows)

    assert main(["table", str(folder.path)]) == 0
    out = capsys.readouterr().out
    assert "?[31m?" in out
    assert "\x1b" not in out


def _edit(folder: RunFolder, old: str, new: str, seconds: float = 60.0) -> None:
    """Change the CSV file some seconds after both files were written."""
    written = folder.trials_parquet.stat().st_mtime
    folder.trials_csv.write_text(folder.trials_csv.read_text().replace(old, new))
    os.utime(folder.trials_csv, (written + seconds, written + seconds))


@pytest.mark.parametrize(
    ("old", "new"), [(",baseline,", ",plan-z,"), ("t0003", "t0033"), ("config/precision", "config/x")]
)
def test_an_edit_of_the_csv_file_counts_and_is_said(folder, old, new):
    _edit(folder, old, new)
    with pytest.warns(UserWarning, match=r"trials\.csv was edited: it differs from trials\.parquet"):
        frame = load_trials(folder.path)
    assert new in frame.to_csv()
    assert old not in frame.to_csv()


def test_a_csv_file_that_is_older_than_the_parquet_file_is_not_used(folder):
    _edit(folder, "t0003", "t0033", seconds=-60.0)
    with pytest.warns(UserWarning, match=r"trials\.parquet was edited: it differs from trials\.csv"):
        assert "t0033" not in set(load_trials(folder.path)["trial_id"])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("how", ["touched", "line ends", "capitals", "no digest"])
def test_the_same_content_in_another_form_is_no_edit(folder, how):
    before = load_trials(folder.path)
    if how == "line ends":
        folder.trials_csv.write_bytes(folder.trials_csv.read_bytes().replace(b"\n", b"\r\n"))
    elif how == "capitals":
        folder.trials_csv.write_text(folder.trials_csv.read_text().replace("True", "TRUE").replace("False", "FALSE"))
    elif how == "no digest":
        frame = pd.read_parquet(folder.trials_parquet)
        frame.attrs.clear()
        frame.to_parquet(folder.trials_parquet, index=False)
    os.utime(folder.trials_csv)
    pd.testing.assert_frame_equal(load_trials(folder.path), before)


def test_a_report_of_an_edited_folder_says_so_once_and_settles_it(folder, capsys):
    _edit(folder, ",baseline,", ",plan-z,")

    assert main(["report", str(folder.path)]) == 0
    assert capsys.readouterr().err.count("was edited") == 1
    assert main(["report", str(folder.path)]) == 0
    assert "was edited" not in capsys.readouterr().err


def test_an_edited_csv_file_that_is_no_table_is_said_and_the_other_one_used(folder, capsys):
    folder.trials_csv.write_text("a;b\n1;2\n")

    assert main(["table", str(folder.path)]) == 0
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "trials.csv cannot be read as a trials table" in said


@pytest.mark.parametrize("value", [str(2**63), "-1" + "0" * 30, "9" * 400, "9" * 5000, "1e30", "nan"])
@pytest.mark.parametrize("column", ["epochs", "train_samples", "seed", "config/batch_size", "seconds_per_epoch"])
def test_a_number_that_is_too_large_is_a_number_or_refused_in_one_line(folder, capsys, column, value):
    frame = pd.read_csv(folder.trials_csv, dtype=str, keep_default_na=False)
    frame.loc[0, column] = value
    frame.to_csv(folder.trials_csv, index=False)
    folder.trials_parquet.unlink()
    assert main(["table", str(folder.path)]) in (0, 2)
    assert capsys.readouterr().err.count("\n") <= 1


@pytest.mark.parametrize("line", ['{"config": 1, "seed": 1}', "[]", '{"config": {}, "seed": "x"}', "{", "7"])
def test_a_line_of_errors_that_is_none_is_left_out(folder, capsys, line):
    Path(folder.errors).write_text(line + "\n")
    assert main(["report", str(folder.path)]) == 0
    assert "1 of 1 lines cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [{"curve": [{"step": "x", "val_mse": 1}]}, {"trial_id": 7}, {"val_mse": "x"}, {"examples": [{"history": 1}]}],
)
def test_an_error_training_with_values_of_another_type_is_left_out(folder, capsys, change):
    sound = {"trial_id": "t0000", "config": folder.read_manifest().run_config, "seed": 1, "val_mse": 0.5}
    folder.errors.write_text(json.dumps(sound | change) + "\n")
    assert main(["report", str(folder.path)]) == 0
    assert "1 of 1 lines cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["manifest.json", "errors.jsonl"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "endless"])
def test_a_pipe_or_a_device_in_the_place_of_a_file_is_refused_and_not_waited_for(folder, capsys, name, make):
    path = folder.path / name
    path.unlink(missing_ok=True)
    make(path)

    assert main(["report", str(folder.path)]) == 2

    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert name in said
    assert "not an ordinary file" in said


def test_half_of_a_surrogate_pair_in_a_manifest_is_refused(folder, capsys):
    values = json.loads(folder.manifest.read_text())
    folder.manifest.write_text(json.dumps({**values, "name": "\ud800"}))

    assert main(["report", str(folder.path)]) == 2

    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "manifest.json must be readable JSON" in said
