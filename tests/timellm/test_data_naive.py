import pandas as pd
import pytest
import torch

from timellm.data.dates import has_season, infer_frequency, parse_dates, season_name, season_of
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


@pytest.mark.parametrize(
    ("dates", "has"),
    [
        (pd.date_range("2020-01-01", periods=300, freq="h"), True),
        (pd.date_range("2020-01-01", periods=300, freq="h").delete([50, 51, 52, 200]), True),
        (pd.date_range("2020-01-01", periods=300, freq="B"), True),
        (pd.date_range("2020-01-01", periods=300, freq="W"), True),
        (pd.date_range("2000-01-01", periods=60, freq="ME"), True),
        (pd.date_range("2000-01-01", periods=60, freq="WOM-3MON"), True),
        (pd.date_range("2020-01-01", periods=3000, freq="5min").to_series().between_time("9:30", "16:00").index, False),
        (pd.date_range("2020-01-01", periods=300, freq="7h"), False),
        (pd.date_range("2020-01-01", periods=300, freq="2D"), False),
        (pd.date_range("2020-01-01", periods=20, freq="h"), False),
        (pd.date_range("2000-01-01", periods=60, freq="YS"), False),
    ],
)
def test_a_season_is_claimed_where_rows_that_far_apart_are_a_day_week_or_year_apart(dates, has):
    assert has_season(dates, infer_frequency(dates)) is has


@pytest.mark.parametrize(
    ("frequency", "found", "season"), [("D", "D", 7), ("W-TUE", "W-TUE", 52), ("2W-TUE", "2W-TUE", 26), ("3D", "3D", 2)]
)
def test_a_few_gaps_do_not_hide_the_frequency(frequency, found, season):
    dates = pd.date_range("2001-01-02", periods=300, freq=frequency).delete([5, 6, *range(20, 290, 25), 295])
    assert infer_frequency(dates) == found
    assert season_of(found) == season


def test_no_season_without_dates():
    assert not has_season(None, None)


@pytest.mark.parametrize("kind", ["int64", "str"])
@pytest.mark.parametrize(
    ("form", "frequency", "found"),
    [("%Y%m", "MS", "MS"), ("%Y%m%d", "D", "D"), ("%Y%m%d%H", "h", "h"), ("%Y", "YS", "YS-JAN")],
)
def test_dates_of_digits_alone_are_read_as_they_are_written(kind, form, frequency, found):
    dates = pd.date_range("2001-01-01", periods=40, freq=frequency)
    read = parse_dates(pd.Series(dates.strftime(form)).astype(kind))
    assert read.equals(dates.as_unit(read.unit))
    assert infer_frequency(read) == found


@pytest.mark.parametrize("numbers", [range(12), range(101, 140), range(10_000, 10_040), [20240132, 20240133]])
def test_numbers_that_are_no_dates_are_not_taken_for_dates(numbers):
    assert parse_dates(pd.Series(numbers)) is None
    assert parse_dates(pd.Series(numbers).astype(str)) is None


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
