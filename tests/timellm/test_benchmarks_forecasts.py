import numpy as np
import pytest
import torch

from benchmarks.forecast_speed import ForecastSpeed
from benchmarks.intervals import Held, by_column, by_step, last_season
from timellm.contract.errors import InputError
from timellm.forecasting.baselines import seasonal_naive


@pytest.mark.parametrize("season", [4, 7])
def test_the_last_season_of_windows_is_the_seasonal_naive_forecast_of_a_history(season):
    history = np.random.default_rng(0).normal(size=(12, 1))
    windows = torch.from_numpy(history.T)
    expected = seasonal_naive(history, np.array([12]), np.array([0]), 10, season)
    np.testing.assert_array_equal(last_season(windows, 10, season), expected)


def test_tables_hold_coverage_and_width_by_column_and_step():
    inside = np.array([[True, True], [True, False]])
    held = [Held("x, plain", inside, np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0, 1]))]
    columns = by_column(held, [("a", 0), ("b", 1)])
    assert columns.headings == ("column", "x, plain: held, %", "x, plain: width")
    assert columns.rows == (("a", "100.0", "1.50"), ("b", "50.0", "3.50"), ("all", "75.0", "2.50"))
    assert by_step(held).rows == (("1", "100.0", "2.00"), ("2", "50.0", "3.00"))


def test_fewer_windows_than_rounds_are_refused():
    arguments = ForecastSpeed().parser().parse_args(["--windows", "3", "--root_path", "."])
    with pytest.raises(InputError, match="windows must be at least repeats = 8, got 3"):
        ForecastSpeed().measure(arguments)
