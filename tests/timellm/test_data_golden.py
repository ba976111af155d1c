import json
from typing import Any

import pytest
import torch

from tests.timellm.etth1 import ett_folder
from tests.timellm.golden_cases import golden_dir
from timellm.contract.config import RunConfig
from timellm.data import SeriesData, Split, load_data

_SPLITS = {"train": "train", "val": "validation", "test": "test"}


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    return json.loads((golden_dir() / "etth1_windows.json").read_text())


def _load(facts: dict[str, Any], percent: int = 100) -> SeriesData:
    return load_data(
        RunConfig(
            data="ETTh1",
            root_path=str(ett_folder()),
            seq_len=facts["seq_len"],
            pred_len=facts["pred_len"],
            label_len=facts["label_len"],
            features=facts["features"],
            percent=percent,
        )
    )


def _window(split: Split, columns: tuple[str, ...], column: str, start: int) -> dict[str, torch.Tensor]:
    """A window as the published loader gives it: y begins label_len rows before the end of x."""
    index = columns.index(column) * split.windows_per_channel + start
    x, y = (part[0] for part in split.gather(torch.tensor([index])))
    return {"x": x, "y": torch.cat([x, y]), "y_pred": y}


def _percent_keys() -> list[str]:
    facts = json.loads((golden_dir() / "etth1_windows.json").read_text())
    return [key for key in facts if key.startswith("percent_")]


def test_golden_scaler_of_etth1(facts: dict[str, Any]):
    data = _load(facts)
    assert list(data.columns) == facts["columns"]
    for column, mean, std in zip(data.columns, data.mean, data.std, strict=True):
        assert mean == pytest.approx(facts["scaler"]["mean"][column], rel=1e-10)
        assert std == pytest.approx(facts["scaler"]["std"][column], rel=1e-10)


@pytest.mark.parametrize("key", _percent_keys())
def test_golden_windows_of_etth1(facts: dict[str, Any], key: str):
    data = _load(facts, percent=int(key.removeprefix("percent_")))
    for name, expected in facts[key].items():
        if name not in _SPLITS:
            continue
        split = data.split(_SPLITS[name])
        assert len(split.values) == expected["rows"]
        assert split.windows_per_channel == expected["windows_per_channel"]
        assert split.channels == expected["channels"]
        assert len(split) == expected["len_dataset"]
        for which, start in (("first_window", 0), ("last_window", split.windows_per_channel - 1)):
            for part, columns in expected[which].items():
                for column, values in columns.items():
                    ours = _window(split, data.columns, column, start)[part][-values["length"] :]
                    assert ours[:3].tolist() == pytest.approx(values["first3"], abs=1e-6)
                    assert ours[-3:].tolist() == pytest.approx(values["last3"], abs=1e-6)


def test_golden_percent_leaves_scaler_validation_and_test_alone(facts: dict[str, Any]):
    whole, tenth = _load(facts), _load(facts, percent=10)
    assert whole.mean.tolist() == tenth.mean.tolist()
    assert torch.equal(whole.validation.values, tenth.validation.values)
    assert torch.equal(whole.test.values, tenth.test.values)
