import json

import numpy as np
import pandas as pd
import pytest

from tests.timellm.forecast_runs import AMPLITUDE, COLUMNS, run_forecast, train, wave
from tests.timellm.tiny_backbones import KINDS
from timellm import Forecaster
from timellm.contract.errors import InputError
from timellm.forecasting.scores import ALL


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIMELLM_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    checkpoint, _ = train(folder, train_epochs=6, learning_rate=5e-3, lradj="constant", batch_size=16)
    return checkpoint


@pytest.fixture(scope="module")
def forecaster(trained):
    return Forecaster.load(trained)


def saved(checkpoint):
    return pd.read_parquet(checkpoint.parent / "test_forecasts.parquet").sort_values(["unique_id", "cutoff", "ds"])


def test_a_planted_daily_wave_comes_back_in_its_own_units_and_on_the_next_dates(forecaster):
    history = wave()
    future = wave(rows=524).tail(24)
    frame = forecaster.forecast(history)
    assert list(frame.columns) == ["unique_id", "ds", "y_hat", "y_hat-lo-90", "y_hat-hi-90"]
    assert frame.unique_id.tolist() == ["indoor"] * 24 + ["outdoor"] * 24
    for name in COLUMNS:
        rows = frame[frame.unique_id == name]
        assert rows.ds.tolist() == future.date.tolist()
        assert np.abs(rows.y_hat.to_numpy() - future[name].to_numpy()).max() < AMPLITUDE / 3
        assert (rows["y_hat-lo-90"] < rows.y_hat).all()
        assert (rows["y_hat-hi-90"] > rows.y_hat).all()


def test_wide_and_long_frames_in_any_order_of_columns_give_the_same_forecast(forecaster):
    frame = wave()
    expected = forecaster.forecast(frame)
    turned = forecaster.forecast(frame.rename(columns={"date": "ds"})[["outdoor", "ds", "indoor"]])
    long = frame.melt("date", var_name="unique_id", value_name="y").rename(columns={"date": "ds"})
    pd.testing.assert_frame_equal(turned, expected)
    pd.testing.assert_frame_equal(forecaster.forecast(long.sample(frac=1, random_state=0).sort_values("ds")), expected)
    wide = forecaster.forecast(frame, wide=True)
    assert list(wide.columns) == [
        "ds", "indoor", "indoor-lo-90", "indoor-hi-90", "outdoor", "outdoor-lo-90", "outdoor-hi-90",
    ]  # fmt: skip
    np.testing.assert_array_equal(wide["outdoor"], expected.y_hat[24:])


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("gpt2", {"prompt_prefix": "recompute"}),
        ("gpt2", {"prompt_prefix": "reuse", "batch_size": 7}),
        ("llama", {"prompt_prefix": "store", "prompt_scope": "span"}),
        ("bert", {"prompt": "dwt-minimal", "dwt_prompt_level": 2}),
        ("gpt2", {"prompt_padding": "published", "features": "MS", "target": "indoor"}),
        ("gpt2", {"llm_model": "none", "llm_path": None}),
        ("gpt2", {"precision": "bf16", "prompt_prefix": "reuse", "prompt": "none"}),
        ("gpt2", {"tune_layer_norm": True, "features": "S", "target": "outdoor"}),
    ],
    ids=["recompute", "reuse", "store", "bert", "published", "control", "bf16", "norms"],
)
def test_forecasts_are_the_runs_own_to_1e_5_and_bit_for_bit_as_trained(tmp_path, kind, changes):
    checkpoint, _ = train(tmp_path, wave(300), kind=kind, **changes)
    own = saved(checkpoint)
    for as_trained in (False, True):
        found = Forecaster.load(checkpoint, as_trained=as_trained).backtest(origins="test").forecasts
        found = found.sort_values(["unique_id", "cutoff", "ds"])
        assert found.ds.tolist() == own.ds.tolist()
        np.testing.assert_allclose(found.y, own.y, rtol=1e-6)
        scale = own.y_hat.abs().max()
        assert np.abs(found.y_hat.to_numpy() - own.y_hat.to_numpy()).max() < 1e-5 * scale
        if as_trained:
            np.testing.assert_array_equal(found.y_hat.to_numpy(), own.y_hat.to_numpy())


def test_the_kinds_of_language_models_above_are_all_there_are():
    assert set(KINDS) == {"gpt2", "llama", "bert"}


def test_a_backtest_scores_by_column_and_step_as_the_formulas_say(forecaster):
    frame = wave()
    found = forecaster.backtest(frame, origins=5, step_size=7)
    rows = found.forecasts
    assert found.origins == 5
    assert rows.cutoff.nunique() == 5
    assert rows.ds.max() == frame.date.max()
    table = found.scores.set_index(["model", "unique_id", "step"])
    assert set(table.index.levels[0]) == {"Time-LLM", "last value", "seasonal naive (24)"}
    one = rows[rows.unique_id == "outdoor"]
    error = one.y - one.y_hat
    score = table.loc[("Time-LLM", "outdoor", 0)]
    assert score.mse == pytest.approx((error**2).mean())
    assert score.mae == pytest.approx(error.abs().mean())
    assert score.smape == pytest.approx((200 * error.abs() / (one.y.abs() + one.y_hat.abs())).mean())
    trained = frame.outdoor[: int(500 * 0.7)].to_numpy()
    assert score.mase == pytest.approx(error.abs().mean() / np.abs(trained[24:] - trained[:-24]).mean(), rel=1e-5)
    inside = (one.y >= one["y_hat-lo-90"]) & (one.y <= one["y_hat-hi-90"])
    assert score.coverage == pytest.approx(inside.mean())
    third = one.groupby("cutoff").nth(2)
    assert table.loc[("Time-LLM", "outdoor", 3)].mae == pytest.approx((third.y - third.y_hat).abs().mean())
    assert table.loc[("Time-LLM", ALL, 0)].windows == 10


def test_naive_forecasts_of_a_backtest_are_those_of_the_history(forecaster):
    frame = wave()
    found = forecaster.backtest(frame, origins=1, season=48)
    table = found.scores.set_index(["model", "unique_id", "step"])
    truth, past = frame.indoor[-24:].to_numpy(), frame.indoor[:-24].to_numpy()
    assert table.loc[("last value", "indoor", 0)].mae == pytest.approx(np.abs(truth - past[-1]).mean())
    seasonal = table.loc[("seasonal naive (48)", "indoor", 0)]
    assert seasonal.mae == pytest.approx(np.abs(truth - past[-48:-24]).mean())
    assert any("season of 48" in note for note in found.notes)


def test_a_backtest_says_when_its_rows_were_trained_on(forecaster):
    assert any("were trained on" in note for note in forecaster.backtest(origins=15).notes)
    assert not any("were trained on" in note for note in forecaster.backtest(origins=1).notes)


def test_a_control_without_a_language_model_is_judged_beside_it(tmp_path, forecaster, trained):
    control, _ = train(tmp_path, train_epochs=1, llm_model="none", llm_path=None)
    found = forecaster.backtest(wave(), origins=3, control=control)
    alone = Forecaster.load(control).backtest(wave(), origins=3)
    pick = found.scores[found.scores.model == "no language model"].reset_index(drop=True)
    expected = alone.scores[alone.scores.model == "Time-LLM"].reset_index(drop=True)
    np.testing.assert_allclose(pick.mse, expected.mse, rtol=1e-4)
    with pytest.raises(InputError, match="control must be trained with llm_model none"):
        forecaster.backtest(wave(), origins=3, control=trained)


def test_columns_that_were_not_trained_on_are_scaled_by_their_own_history(forecaster):
    other = wave().rename(columns={"indoor": "a", "outdoor": "b"})
    other["b"] = other["b"] * 1000
    frame = forecaster.forecast(other, other_data=True)
    rows = frame[frame.unique_id == "b"]
    truth = wave(524).outdoor.tail(24).to_numpy() * 1000
    assert np.abs(rows.y_hat.to_numpy() - truth).max() < 1000 * AMPLITUDE / 3
    assert "y_hat-lo-90" not in frame
    assert any("not trained on" in note for note in frame.attrs["notes"])
    changed = other.copy()
    changed.loc[changed.index[-40:], "b"] *= 1.5
    same = forecaster.backtest(other, origins=2, other_data=True).forecasts
    later = forecaster.backtest(changed, origins=2, other_data=True).forecasts
    first = (same.unique_id == "b") & (same.cutoff == same.cutoff.min())
    np.testing.assert_array_equal(same[first].y_hat, later[first].y_hat)


def test_the_command_carries_a_training_over_to_another_file_with_other_columns(monkeypatch, capsys, trained, tmp_path):
    other = wave(400, start="2019-06-01")
    other = pd.DataFrame({"date": other.date, "x": other.indoor * 10, "y": other.outdoor, "z": -other.indoor})
    other.to_csv(tmp_path / "other.csv", index=False)
    flags = [trained, "--data_path", tmp_path / "other.csv", "--other_data", "--num_threads", 1]

    status, said, err = run_forecast(monkeypatch, capsys, *flags, "--out", tmp_path / "next.csv")

    assert status == 0, err
    assert "the columns were not trained on" in said
    frame = pd.read_csv(tmp_path / "next.csv", parse_dates=["ds"])
    assert list(frame.columns) == ["unique_id", "ds", "y_hat"]
    assert frame.unique_id.unique().tolist() == ["x", "y", "z"]
    assert frame.ds.min() == other.date.iloc[-1] + pd.Timedelta(hours=1)
    levels = frame.groupby("unique_id").y_hat.mean()
    assert np.abs(levels - other[["x", "y", "z"]].mean()).lt([10 * AMPLITUDE, AMPLITUDE, AMPLITUDE]).all()
    status, said, err = run_forecast(monkeypatch, capsys, *flags, "--backtest", 3, "--out", tmp_path / "past.csv")
    assert status == 0, err
    scores = pd.read_csv(tmp_path / "past_scores.csv").set_index(["model", "unique_id", "step"])
    errors = scores.scaled_mse.xs((ALL, 0), level=("unique_id", "step"))
    assert errors["Time-LLM"] < errors["last value"]
    assert scores.coverage.isna().all()


def test_ms_forecasts_the_target_alone_from_its_own_history(tmp_path):
    checkpoint, _ = train(tmp_path, wave(300), features="MS", target="indoor")
    forecaster = Forecaster.load(checkpoint)
    whole = forecaster.forecast(wave(300))
    assert set(whole.unique_id) == {"indoor"}
    pd.testing.assert_frame_equal(forecaster.forecast(wave(300)[["date", "indoor"]]), whole)


@pytest.mark.parametrize(
    ("freq", "last", "following"),
    [("ME", "2040-02-29", "2040-03-31"), ("B", "2024-03-01", "2024-03-04"), ("15min", None, None)],
)
def test_dates_go_on_by_the_calendar(tmp_path, freq, last, following):
    frame = wave(300)
    dates = pd.date_range(end=last or "2024-03-01", periods=300, freq=freq)
    frame["date"] = dates
    checkpoint, _ = train(tmp_path, frame, train_samples=8)
    ahead = Forecaster.load(checkpoint).forecast(frame).ds[:24]
    assert ahead.tolist() == pd.date_range(dates[-1], periods=25, freq=freq)[1:].tolist()
    assert following is None or ahead.iloc[0] == pd.Timestamp(following)


def test_the_command_writes_forecast_notes_and_plot(monkeypatch, capsys, trained, tmp_path):
    wave().to_parquet(tmp_path / "data.parquet")
    out = tmp_path / "out" / "next.parquet"
    status, said, err = run_forecast(
        monkeypatch, capsys, trained, "--data_path", tmp_path / "data.parquet", "--out", out, "--level", 80,
        "--num_threads", 1,
    )  # fmt: skip
    assert status == 0, err
    assert said.splitlines()[-2:] == [f"plot: {out.with_suffix('.html')}", f"forecast: {out}"]
    assert list(pd.read_parquet(out).columns) == ["unique_id", "ds", "y_hat", "y_hat-lo-80", "y_hat-hi-80"]
    notes = json.loads(out.with_suffix(".json").read_text())["notes"]
    assert any("The same windows chose the checkpoint" in note for note in notes)
    assert "The same windows chose the checkpoint" in out.with_suffix(".html").read_text()


def test_the_command_forecasts_its_own_data_beside_the_checkpoint_and_draws_a_png(
    monkeypatch, capsys, trained, tmp_path
):
    picture = tmp_path / "next.png"
    status, _, err = run_forecast(monkeypatch, capsys, trained.parent, "--plot", picture, "--wide")
    assert status == 0, err
    assert picture.read_bytes().startswith(b"\x89PNG")
    wide = pd.read_csv(trained.parent / "forecast.csv", parse_dates=["ds"])
    assert wide.ds.iloc[0] == wave().date.iloc[-1] + pd.Timedelta(hours=1)
    assert "indoor-lo-90" in wide


def test_the_command_backtests(monkeypatch, capsys, trained, tmp_path):
    out = tmp_path / "past.csv"
    status, said, err = run_forecast(monkeypatch, capsys, trained, "--backtest", 4, "--out", out)
    assert status == 0, err
    assert "Time-LLM" in said
    assert "--control" in said
    assert len(pd.read_csv(out)) == 4 * 2 * 24
    assert {"coverage", "mase", "smape"} <= set(pd.read_csv(tmp_path / "past_scores.csv").columns)
    assert out.with_suffix(".html").is_file()
