import pytest
import torch

from tests.timellm.tiny_runs import options, set_up, tiny_config
from timellm.contract.errors import InputError
from timellm.data.naive import naive_errors
from timellm.data.splits import Split
from timellm.run.training import TrainingRun


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


def test_the_control_trains_without_a_language_model_and_learns(folder, tmp_path):
    config = tiny_config(folder, llm_model="none", llm_path=None, train_epochs=3, learning_rate=3e-3)
    result = TrainingRun(config, options(tmp_path)).run()
    assert result.state == "complete"
    assert result.backbone == "no language model"
    assert result.trainable_parameters == result.total_parameters
    assert result.val_mse < min(result.naive_mse["last value"], result.naive_mse["window mean"])


def test_the_control_sees_no_other_window(folder):
    prepared, _, _ = set_up(tiny_config(folder, llm_model="none", llm_path=None))
    batch = next(iter(prepared.train([torch.tensor([1, 50, 99])])))
    model = prepared.model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(batch.x[:1], batch.prompt)[0], model(batch.x, batch.prompt)[0])


def test_the_control_has_nothing_to_reuse(folder):
    with pytest.raises(InputError, match="needs prompt_prefix recompute, got reuse"):
        tiny_config(folder, llm_model="none", prompt_prefix="reuse")


def test_naive_forecasts_of_a_daily_wave():
    hours = torch.arange(200.0)
    split = Split(torch.sin(2 * torch.pi * hours / 24).unsqueeze(1), seq_len=48, pred_len=36)
    errors = naive_errors(split, torch.arange(len(split)), "h")
    assert errors["last day (24 steps) repeated"] < 1e-10
    assert errors["window mean"] == pytest.approx(0.5, rel=0.05)
    assert errors["last value"] > errors["window mean"]
