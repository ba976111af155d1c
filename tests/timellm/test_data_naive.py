import pandas as pd
import pytest
import torch

from timellm.data.dates import infer_frequency, season_name, season_of
from timellm.data.naive import naive_errors, naive_forecasts
from timellm.data.splits import Split

FORECASTS = ["last value", "window mean"]


@pytest.mark.parametrize(
    ("frequency", "season", "name"),
    [
        ("min", 1440, "day"), ("5min", 288, "day"), ("10min", 144, "day"), ("15min", 96, "day"), ("30min", 48, "day"),
        ("h", 24, "day"), ("2h", 12, "day"), ("6h", 4, "day"), ("D", 7, "week"), ("B", 5, "week"),
        ("W-SUN", 52, "year"), ("W-WED", 52, "year"), ("MS", 12, "year"), ("ME", 12, "year"), ("BME", 12, "year"),
        ("QS", 4, "year"), ("QE-DEC", 4, "year"), ("YS", 1, None), ("YE", 1, None),
    ],
)  # fmt: skip
def test_the_season_follows_from_the_dates(frequency, season, name):
    dates = pd.date_range("2000-01-01", periods=200, freq=frequency)
    found = infer_frequency(dates)
    assert (season_of(found), season_name(found)) == (season, name)
    labels = list(naive_forecasts(found, 2000))
    assert labels == [*FORECASTS, *([f"last {name} ({season} steps) repeated"] if name else [])]


def test_no_season_is_claimed_where_the_dates_have_none():
    assert list(naive_forecasts(None, 96)) == FORECASTS


def test_a_season_longer_than_the_input_is_left_out():
    assert list(naive_forecasts("5min", 96)) == FORECASTS


@pytest.mark.parametrize(("frequency", "season"), [("h", 24), ("D", 7), ("MS", 12)])
def test_the_last_season_repeated_forecasts_a_wave_of_that_season(frequency, season):
    wave = torch.sin(2 * torch.pi * torch.arange(300.0) / season).unsqueeze(1)
    split = Split(wave, seq_len=48, pred_len=30)
    errors = naive_errors(split, torch.arange(len(split)), frequency)
    assert errors[list(errors)[-1]] < 1e-9
    assert len(errors) == 3
