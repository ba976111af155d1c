import numpy as np
import pandas as pd
import pytest

from tests.timellm.data_set_contract import DataSetContract
from timellm.contract.config import RunConfig
from timellm.contract.datasets import DATA_SETS
from timellm.contract.errors import InputError
from timellm.data import load_data

PUBLISHED = {"Weather": ("weather.csv", "10min"), "ECL": ("electricity.csv", "h"), "Traffic": ("traffic.csv", "h")}


class TestNycWeather(DataSetContract):
    name = "nyc-weather"


class TestEtth1(DataSetContract):
    name = "ETTh1"


class TestEtth2(DataSetContract):
    name = "ETTh2"


class TestEttm1(DataSetContract):
    name = "ETTm1"
    frequency = "15min"


class TestEttm2(DataSetContract):
    name = "ETTm2"
    frequency = "15min"


class TestWeather(DataSetContract):
    name = "Weather"
    frequency = "10min"


class TestEcl(DataSetContract):
    name = "ECL"


class TestTraffic(DataSetContract):
    name = "Traffic"


class TestCustom(DataSetContract):
    name = "custom"


def test_every_data_set_is_held_to_the_contract():
    assert {tested.name for tested in DataSetContract.__subclasses__()} == set(DATA_SETS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sets_are_split_70_10_20_and_described(tmp_path, name):
    file_name, frequency = PUBLISHED[name]
    dates = pd.date_range("2016-07-01 02:00", periods=1003, freq=frequency)
    values = np.random.default_rng(0).normal(size=(1003, 3))
    pd.DataFrame({"date": dates, "0": values[:, 0], "1": values[:, 1], "OT": values[:, 2]}).to_csv(
        tmp_path / file_name, index=False
    )
    data = load_data(RunConfig(data=name, root_path=str(tmp_path), features="S", seq_len=24, pred_len=12))
    assert [len(split.values) for split in (data.train, data.validation, data.test)] == [702, 101 + 24, 200 + 24]
    assert data.target == "OT"
    assert data.frequency == frequency
    assert data.description == DATA_SETS[name].published_description


def test_too_few_rows_for_published_borders_are_refused():
    with pytest.raises(InputError, match=r"ETTm1 has published borders and needs at least 57600 rows, got 57599"):
        DATA_SETS["ETTm1"].split.ends("ETTm1", 57_599)
