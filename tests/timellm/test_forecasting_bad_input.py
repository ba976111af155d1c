import numpy as np
import pandas as pd
import pytest

from tests.timellm.forecast_runs import run_forecast, train, wave
from tests.timellm.tiny_backbones import save_tiny
from timellm import Forecaster
from timellm.contract.errors import InputError


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIMELLM_CACHE_DIR", str(folder / "cache"))
        yield train(folder, wave(300), train_samples=8)[0]


def refused(monkeypatch, capsys, *flags):
    """The one line on stderr of a command that exits with 2."""
    capsys.readouterr()
    status, out, err = run_forecast(monkeypatch, capsys, *flags)
    assert (status, out) == (2, ""), err
    line = err.strip().splitlines()
    assert len(line) == 1, err
    return line[0]


def hours(rows, start="2024-01-01"):
    return pd.date_range(start, periods=rows, freq="h")


def with_dates(dates):
    return wave(len(dates)).assign(date=dates)


def with_missing_end():
    frame = wave(100)
    frame.loc[97:, "outdoor"] = np.nan
    return frame


def ragged():
    long = wave(100).melt("date", var_name="unique_id", value_name="y").rename(columns={"date": "ds"})
    return long.drop(long.index[50])


def with_text():
    return wave(100).assign(outdoor=["warm"] * 100)


BAD_DATA = {
    "short": (wave(40), "at least seq_len = 48 rows to forecast from, got 40"),
    "missing": (wave(100).drop(columns="outdoor"), "it lacks outdoor"),
    "renamed": (wave(100).rename(columns={"outdoor": "outside"}), "it lacks outdoor and has also outside"),
    "added": (wave(100).assign(third=1.0), "has also third"),
    "off frequency": (with_dates(pd.date_range("2024-01-01", periods=100, freq="2h")), "training frequency h, got"),
    "repeated": (with_dates(hours(99).append(hours(99)[-1:])), "repeated. Remove or merge"),
    "irregular": (with_dates(hours(60).append(hours(40, "2024-01-05"))), "where 2024-01-03 12:00:00 belongs"),
    "time zone": (with_dates(hours(100).tz_localize("Europe/Paris")), "dates without a time zone"),
    "out of order": (wave(100).iloc[::-1], "in order of time"),
    "unreadable": (with_dates(["soon"] * 100), "got 'soon' in row 1"),
    "gap": (with_dates(hours(99).append(pd.DatetimeIndex([pd.NaT]))), "got none in row 100"),
    "ragged": (ragged(), "the same dates in every series, got 99 rows"),
    "missing end": (with_missing_end(), "column outdoor must have a value in its last row, and its last 3 have none"),
    "text": (with_text(), "column outdoor must be numeric, got 'warm' in row 1"),
    "no dates": (wave(100).drop(columns="date"), "one column of dates named ds or date"),
}


@pytest.mark.parametrize("kind", BAD_DATA)
def test_bad_data_are_one_line_and_status_2(monkeypatch, capsys, tmp_path, trained, kind):
    frame, message = BAD_DATA[kind]
    frame.to_csv(tmp_path / "data.csv", index=False)
    line = refused(monkeypatch, capsys, trained, "--data_path", tmp_path / "data.csv")
    assert message in line
    with pytest.raises(InputError) as said:
        Forecaster.load(trained).forecast(frame)
    assert message in str(said.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((100, 2)), "must be a pandas DataFrame with columns.* got a ndarray"),
        ([1.0, 2.0], "got a list"),
        (pd.Series([1.0, 2.0]), "got a Series"),
        (pd.DataFrame(index=range(5)), "got a DataFrame without columns"),
        (wave(100).set_index("date"), "reset_index"),
        (wave(100).rename(columns={"indoor": "unique_id"}), "in its long form, got date, unique_id, outdoor"),
    ],
)
def test_an_object_that_is_no_table_of_series_is_refused(trained, data, message):
    with pytest.raises(InputError, match=message):
        Forecaster.load(trained).forecast(data)


def test_a_checkpoint_that_is_not_there_is_one_line(monkeypatch, capsys, tmp_path):
    line = refused(monkeypatch, capsys, tmp_path / "none.safetensors")
    assert "none.safetensors was not found" in line
    assert "holds no checkpoint.safetensors" in refused(monkeypatch, capsys, tmp_path)


def test_a_truncated_checkpoint_is_one_line(monkeypatch, capsys, tmp_path, trained):
    cut = tmp_path / "cut.safetensors"
    for size in (0, 5, 400, trained.stat().st_size - 100):
        cut.write_bytes(trained.read_bytes()[:size])
        assert "must be a whole, readable safetensors checkpoint" in refused(monkeypatch, capsys, cut)


def test_a_checkpoint_of_another_language_model_is_one_line(monkeypatch, capsys, tmp_path, trained):
    other = save_tiny("gpt2", tmp_path / "other")
    from safetensors.torch import load_file, save_file

    weights = load_file(other / "model.safetensors")
    weights = {name: tensor + 1 for name, tensor in weights.items()}
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    line = refused(monkeypatch, capsys, trained, "--llm_path", other)
    assert "The language model must be the gpt2 that the checkpoint was trained with" in line
    assert "--llm_path" in line
    llama = save_tiny("llama", tmp_path / "llama")
    assert "llm_path must hold a gpt2 model" in refused(monkeypatch, capsys, trained, "--llm_path", llama)


def test_a_pick_that_was_not_trained_is_one_line(monkeypatch, capsys, tmp_path):
    pick = tmp_path / "runs" / "mine" / "recommended" / "balanced"
    pick.mkdir(parents=True)
    line = refused(monkeypatch, capsys, pick)
    assert "The pick balanced was not trained" in line
    assert f"bash {pick}/command.sh" in line
    run = tmp_path / "runs" / "mine"
    assert "recommends nothing yet" in refused(monkeypatch, capsys, run)
    (run / "recommended" / "exact").mkdir()
    for place in (pick.parent, pick.parent / "exact"):
        (place / "command.sh").write_text("exact")
    (pick / "command.sh").write_text("balanced")
    (pick / "checkpoint.safetensors").touch()
    assert "The pick exact was not trained" in refused(monkeypatch, capsys, run)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--level", "49"], "level must be a whole percent from 50 to 99, got 49"),
        (["--level", "99"], "level 99 needs more validation windows than the 7"),
        (["--freq", "often"], "freq must be a pandas offset"),
        (["--backtest", "0"], "must be a whole number of at least 1, or test, got '0'"),
        (["--backtest", "99"], "Use --backtest 10 or less"),
        (["--step_size", "3"], "Add --backtest N"),
        (["--season", "0"], "season must be at least 1, got 0"),
        (["--out", "x.txt"], "must be a file that ends in .csv or .parquet"),
        (["--plot", "x.pdf"], "must be a file that ends in .html or .png"),
        (["--settings", "x.json"], "settings are for checkpoints of the published code"),
        (["--num_threads", "0"], "num_threads must be at least 1"),
        (["--bogus"], "Unrecognized arguments: --bogus"),
        (["--data_path", "/nowhere.csv"], "/nowhere.csv was not found"),
        (["--other_data", "--level", "90"], "the columns were not trained on"),
    ],
)
def test_bad_flags_are_one_line_and_status_2(monkeypatch, capsys, trained, flags, message):
    assert message in refused(monkeypatch, capsys, trained, *flags)
