import json

import numpy as np
import pandas as pd
import pytest
import torch

from tests.timellm.forecast_runs import run_forecast
from tests.timellm.golden_cases import golden_cases
from tests.timellm.test_model_golden import kind_of, published_config, relative_error, rows
from timellm import Forecaster
from timellm.contract.errors import InputError
from timellm.model.timellm import PromptBatch

DESCRIPTION = (
    "The Electricity Transformer Temperature (ETT) is a crucial indicator in the electric power long-term deployment."
)


def published_file(case, folder, **changes):
    """A torch file as the published code leaves it, and what it does not say."""
    (folder / "llm").mkdir()
    (folder / "llm" / "config.json").write_text(case.config_path.read_text())
    for file in case.tokenizer_folder.iterdir():
        (folder / "llm" / file.name).write_bytes(file.read_bytes())
    weights = {name: torch.from_numpy(array) for name, array in case.weights().items()}
    torch.save(weights, folder / "checkpoint")
    config = published_config(case)
    settings = {
        "llm_model": kind_of(case), "llm_path": str(folder / "llm"), "seq_len": case.seq_len, "stride": config.stride,
        "llm_layers": json.loads(case.config_path.read_text()).get("n_layer", 3), "frequency": "h",
        "columns": [f"c{number}" for number in range(case.channels)], "mean": [0.0] * case.channels,
        "std": [1.0] * case.channels, "description": DESCRIPTION,
    }  # fmt: skip
    settings |= changes
    (folder / "settings.json").write_text(json.dumps(settings))
    return folder / "checkpoint", settings


@pytest.mark.parametrize("case", golden_cases(), ids=lambda case: case.id)
def test_a_published_checkpoint_of_the_golden_weights_gives_the_golden_outputs(case, tmp_path):
    arrays = case.arrays()
    path, settings = published_file(case, tmp_path)
    for as_trained in (False, True):
        forecaster = Forecaster.load(path, settings=settings, as_trained=as_trained)
        ids = torch.from_numpy(arrays["prompt_ids"])
        with torch.no_grad():
            found = forecaster.network.network(rows(arrays["x"]), PromptBatch(ids)).numpy()
        output = found.reshape(case.batch, case.channels, -1).transpose(0, 2, 1)
        assert relative_error(output, arrays["output"]) < 1e-5


@pytest.mark.parametrize("case", golden_cases()[:1], ids=lambda case: case.id)
def test_a_published_checkpoint_forecasts_a_frame(case, tmp_path, monkeypatch, capsys):
    path, settings = published_file(case, tmp_path)
    x = case.arrays()["x"][0]  # [seq_len, channels]
    frame = pd.DataFrame(x, columns=settings["columns"])
    frame.insert(0, "ds", pd.date_range("2024-01-01", periods=len(x), freq="h"))
    whole = Forecaster.load(path, settings=tmp_path / "settings.json").forecast(frame)
    assert len(whole) == case.channels * case.pred_len
    assert np.isfinite(whole.y_hat).all()
    frame.to_csv(tmp_path / "data.csv", index=False)
    out = tmp_path / "next.csv"
    flags = ["--settings", tmp_path / "settings.json", "--data_path", tmp_path / "data.csv", "--out", out]
    status, said, err = run_forecast(monkeypatch, capsys, path, *flags)
    assert status == 0, err
    assert "the checkpoint holds no validation errors" in said
    np.testing.assert_allclose(pd.read_csv(out).y_hat, whole.y_hat, rtol=1e-6)


def test_what_is_wrong_with_a_published_checkpoint_is_one_line(tmp_path, monkeypatch, capsys):
    case = golden_cases()[0]
    path, settings = published_file(case, tmp_path)
    status, out, err = run_forecast(monkeypatch, capsys, path)
    assert (status, out) == (2, "")
    assert "Name a JSON file of its settings with --settings" in err
    with pytest.raises(InputError, match="must give mean, one number for each of"):
        Forecaster.load(path, settings={**settings, "mean": [0.0] * 99})
    with pytest.raises(InputError, match="has no setting named bogus"):
        Forecaster.load(path, settings={**settings, "bogus": 1})
    with pytest.raises(InputError, match=r"must be .* by its settings|these parameters differ"):
        Forecaster.load(path, settings={**settings, "llm_layers": 1})
    weights = torch.load(path, weights_only=True)
    torch.save({name: tensor for name, tensor in weights.items() if "head" not in name[:4]} | {"more": pd.NA}, path)
    with pytest.raises(InputError, match="must be a whole torch file that holds tensors alone"):
        Forecaster.load(path, settings=settings)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="must be a whole torch file that holds tensors alone"):
        Forecaster.load(path, settings=settings)


def test_a_file_of_another_model_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "checkpoint")
    with pytest.raises(InputError, match=r"must hold mapping_layer\.weight"):
        Forecaster.load(tmp_path / "checkpoint", settings={"seq_len": 96})
