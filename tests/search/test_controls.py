from search.decide.clocks.controls import control_config, controls_of
from timellm.contract.config import RunConfig


def test_the_control_keeps_the_baselines_training_and_drops_its_language_model():
    baseline = RunConfig(prompt_prefix="reuse", precision="bf16", batch_size=16, num_workers=2, learning_rate=1e-3)
    control = control_config(baseline)
    assert control.has_no_backbone
    assert (control.batch_size, control.learning_rate) == (16, 1e-3)


def test_controls_are_the_trained_one_and_the_naive_ones():
    result = {"state": "complete", "val_mse": 0.5, "seconds_per_epoch": 3.0, "naive_mse": {"last value": 1.5}}
    assert controls_of(result) == [
        {"name": "no language model", "val_mse": 0.5, "seconds_per_epoch": 3.0},
        {"name": "last value", "val_mse": 1.5},
    ]


def test_naive_forecasts_stand_where_the_control_failed():
    result = {"state": "diverged", "val_mse": None, "naive_mse": {"last value": 1.5}}
    assert controls_of(result) == [{"name": "last value", "val_mse": 1.5}]
    assert controls_of({"state": "failed"}) == []
