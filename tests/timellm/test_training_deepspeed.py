import json

import numpy as np
import pytest
import torch

from tests.timellm.tiny_runs import options, set_up, tiny_config
from timellm.contract.errors import InputError
from timellm.contract.layout import DEEPSPEED_CONFIG
from timellm.model.mapping import MappingLayer
from timellm.optimize.deepspeed_config import generated_deepspeed_config, load_deepspeed_config
from timellm.optimize.deepspeed_json import read_deepspeed_file
from timellm.optimize.engine import DeepSpeedEngine
from timellm.run.errors import Diverged
from timellm.run.training import TrainingRun

CPU_CHECKPOINTING = json.dumps({"activation_checkpointing": {"cpu_checkpointing": True}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


def curve(config, steps=20):
    prepared, stepper, losses = set_up(config)
    stepper.train(prepared.windows.passes[0][: steps * config.global_batch])
    return np.array(losses), stepper.engine


@pytest.mark.deepspeed
@pytest.mark.parametrize(("offload", "tolerance"), [("none", 1e-6), ("cpu", 1e-4)])
@pytest.mark.parametrize("prompt_prefix", ["recompute", "reuse"])
def test_zero_2_gives_the_curve_of_plain_training(folder, offload, tolerance, prompt_prefix):
    common = {"batch_size": 4, "accumulation_steps": 2, "prompt_prefix": prompt_prefix}
    plain, _ = curve(tiny_config(folder, **common))
    sharded, engine = curve(tiny_config(folder, offload_optimizer=offload, **common))
    assert isinstance(engine, DeepSpeedEngine)
    assert engine.model.zero_optimization_stage() == 2
    np.testing.assert_allclose(sharded, plain, rtol=tolerance)


@pytest.mark.deepspeed
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_the_prototypes_are_mapped_once_an_update_whatever_the_stage(folder, tmp_path, monkeypatch, stage):
    common = {"batch_size": 4, "accumulation_steps": 3, "prompt_prefix": "reuse"}
    plain, _ = curve(tiny_config(folder, **common), steps=8)
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": stage}}))
    mapped, prototypes = [], MappingLayer.prototypes
    monkeypatch.setattr(MappingLayer, "prototypes", lambda *given: mapped.append(given) or prototypes(*given))
    sharded, engine = curve(tiny_config(folder, deepspeed_config=str(path), **common), steps=8)
    assert engine.model.zero_optimization_stage() == stage
    assert len(mapped) == 8
    np.testing.assert_allclose(sharded, plain, rtol=1e-6)


@pytest.mark.deepspeed
def test_nothing_is_compiled_unless_the_optimizer_is_on_the_cpu(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr("timellm.optimize.engine.load_extensions", lambda builders: pytest.fail(f"loads {builders}"))
    _, engine = curve(tiny_config(folder, offload_optimizer="none"), steps=1)
    assert engine.model.zero_optimization_stage() == 2
    assert not list(tmp_path.rglob("*.so"))


@pytest.mark.deepspeed
@pytest.mark.parametrize("offload", ["none", "cpu"])
def test_an_overflow_in_fp16_lowers_the_scale_and_training_goes_on(folder, offload):
    config = tiny_config(folder, precision="fp16", offload_optimizer=offload, prompt_prefix="reuse", max_grad_norm=1.0)
    prepared, stepper, _ = set_up(config)
    engine, weight = stepper.engine, prepared.model.reprogramming_layer.key_projection.weight
    engine.optimizer.override_loss_scale(2.0**40)  # so that the first gradients overflow
    engine.loss_scale.scale = 2.0**40
    before, windows = weight.detach().clone(), prepared.windows.passes[0]
    stepper.train(windows[: config.batch_size])
    assert torch.equal(weight.detach(), before)
    assert engine.skipped_in_a_row() == 1
    engine.loss_scale.scale = 2.0**10
    engine.optimizer.override_loss_scale(2.0**10)
    stepper.train(windows[: 2 * config.batch_size])
    assert not torch.equal(weight.detach(), before)
    assert engine.skipped_in_a_row() == 0
    assert engine.optimizer.loss_scale == 2.0**10


@pytest.mark.deepspeed
def test_the_scale_of_fp16_falls_until_updates_are_made(folder):
    config = tiny_config(folder, precision="fp16", offload_optimizer="none", prompt_prefix="reuse")
    prepared, stepper, _ = set_up(config)
    stepper.engine.loss_scale.scale = 2.0**40
    stepper.engine.optimizer.override_loss_scale(2.0**40)
    with pytest.raises(Diverged, match=r"the last 10 up to step 10 were skipped.*Try --precision bf16"):
        stepper.train(prepared.windows.passes[0])
    assert stepper.engine.optimizer.loss_scale == 2.0**30
    plain, _ = curve(tiny_config(folder, precision="fp32", offload_optimizer="none", prompt_prefix="reuse"), steps=5)
    half, _ = curve(config, steps=5)
    np.testing.assert_allclose(half, plain, rtol=0.02)


def test_clipping_is_always_written(folder):
    assert generated_deepspeed_config(tiny_config(folder))["gradient_clipping"] == 0
    assert generated_deepspeed_config(tiny_config(folder, max_grad_norm=0.5))["gradient_clipping"] == 0.5


def test_a_users_file_with_comments_is_read_and_auto_is_resolved(folder, tmp_path):
    path = tmp_path / "ds.json"
    path.write_text(
        """{
        // bigger batches
        "train_micro_batch_size_per_gpu": "auto",  # resolved
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": 2, "comment": "no // comment in here"}
        }"""
    )
    settings = load_deepspeed_config(tiny_config(folder, deepspeed_config=str(path), batch_size=16))
    assert settings["train_micro_batch_size_per_gpu"] == 16
    assert settings["gradient_clipping"] == 1.0
    assert read_deepspeed_file(path)["zero_optimization"]["comment"] == "no // comment in here"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{,}", "must be JSON"),
        ("[1]", "must be a JSON object"),
        (json.dumps({"activation_checkpointing": {"partition_activations": True}}), "partition_activations"),
        (CPU_CHECKPOINTING, "cpu_checkpointing: it moves what gradient checkpointing keeps. Add --gradient_checkpoin"),
    ],
)
def test_a_bad_file_is_refused_with_a_reason(folder, tmp_path, text, message):
    path = tmp_path / "ds.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_deepspeed_config(tiny_config(folder, deepspeed_config=str(path)))


def test_compiled_code_and_the_control_refuse_cpu_checkpointing(folder, tmp_path):
    path = tmp_path / "ds.json"
    path.write_text(CPU_CHECKPOINTING)
    common = {"gradient_checkpointing": True, "deepspeed_config": str(path)}
    with pytest.raises(InputError, match="Use --compile_mode off"):
        load_deepspeed_config(tiny_config(folder, compile_mode="default", **common))
    with pytest.raises(InputError, match="llm_model none has no blocks"):
        load_deepspeed_config(tiny_config(folder, llm_model="none", llm_path=None, **common))


@pytest.mark.deepspeed
@pytest.mark.parametrize("prompt_prefix", ["recompute", "reuse"])
def test_cpu_checkpointing_trains_and_says_where_the_inputs_lie(folder, tmp_path, prompt_prefix):
    path = tmp_path / "ds.json"
    path.write_text(CPU_CHECKPOINTING)
    config = tiny_config(folder, prompt_prefix=prompt_prefix, gradient_checkpointing=True, train_samples=16)
    config = config.replace(val_samples=8)
    plain, moved = (
        TrainingRun(this, options(tmp_path)).run() for this in (config, config.replace(deepspeed_config=str(path)))
    )
    assert moved.state == "complete"
    assert moved.val_mse == pytest.approx(plain.val_mse, rel=1e-5)
    (note,) = [note for note in moved.notes if "cpu_checkpointing" in note]
    assert "the device is the CPU, so the inputs of checkpointed blocks stay where they are" in note
    assert not [note for note in plain.notes if "cpu_checkpointing" in note]
    saved = json.loads((tmp_path / DEEPSPEED_CONFIG).read_text())
    assert saved["activation_checkpointing"]["cpu_checkpointing"] is True
