"""Backtests over many windows: what intervals hold, and what streaming keeps in memory."""

import tracemalloc

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.timellm.forecast_runs import train
from timellm import Forecaster
from timellm.forecasting import network
from timellm.forecasting.output import TableFile
from timellm.forecasting.scores import ALL
from timellm.run.residuals import KINDS


def noise(rows=6000):
    """Four series whose rows are exchangeable."""
    values = np.random.default_rng(5).normal(size=(rows, 4))
    frame = pd.DataFrame(values, columns=["a", "b", "c", "d"])
    frame.insert(0, "date", pd.date_range("2024-01-01", periods=rows, freq="h"))
    return frame


@pytest.fixture(scope="module")
def forecaster(tmp_path_factory):
    """A control without a language model: what lies around a forecast is the same, and it costs little."""
    folder = tmp_path_factory.mktemp("noise")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIMELLM_CACHE_DIR", str(folder / "cache"))
        settings = {"llm_model": "none", "llm_path": None, "train_samples": 256, "val_samples": 2000}
        yield Forecaster.load(train(folder, noise(), **settings)[0])


@pytest.mark.parametrize("interval", KINDS)
def test_intervals_at_90_hold_88_to_92_percent_of_an_exchangeable_series(forecaster, tmp_path, interval):
    found = forecaster.backtest(origins="test", interval=interval, out=tmp_path / "test.parquet")
    scores = found.scores[found.scores.model == "Time-LLM"].set_index(["unique_id", "step"])
    assert found.origins == 6000 * 2 // 10 - 24 + 1
    assert 0.88 <= scores.loc[(ALL, 0)].coverage <= 0.92


def test_a_backtest_of_ten_times_the_windows_takes_no_more_memory(forecaster, tmp_path):
    frame = noise()
    peaks = []
    for origins in (40, 400):
        tracemalloc.start()
        forecaster.backtest(frame, origins=origins, step_size=1, out=tmp_path / "past.parquet")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_prompts_and_forecasts_of_a_whole_split_are_held_a_piece_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setenv("TIMELLM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(network, "WINDOWS_PER_CHUNK", 64)
    prompts, rows = [], []
    tokenized, add = network.tokenized_windows, TableFile.add

    def counted(*arguments, indices, **more):
        prompts.append(len(indices))
        return tokenized(*arguments, indices=indices, **more)

    monkeypatch.setattr(network, "tokenized_windows", counted)
    monkeypatch.setattr(TableFile, "add", lambda file, part: (rows.append(len(part)), add(file, part)))
    checkpoint, config = train(tmp_path, noise(500), train_samples=8)

    found = Forecaster.load(checkpoint).backtest(origins="test", out=tmp_path / "test.parquet")

    assert found.forecasts is None
    assert sum(prompts) == 4 * found.origins
    assert max(prompts) == 64
    assert max(rows) == network.BATCH * config.pred_len
    assert pq.read_metadata(tmp_path / "test.parquet").num_rows == 4 * found.origins * config.pred_len
