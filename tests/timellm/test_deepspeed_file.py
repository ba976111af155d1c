"""DeepSpeed files in every dialect: understood, or refused with all problems at once, before anything starts."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.optimize import deepspeed_blocks
from timellm.optimize.deepspeed_config import deepspeed_notes, load_deepspeed_config

CASES = Path(__file__).parents[1] / "cases" / "ds"
REFUSED = {
    "stage3": "Use stage 2",
    "bf16_true": "Use --precision bf16",
    "null_zero": "zero_optimization must be an object, got null",
    "typo_key": "Did you mean contiguous_gradients?",
    "latin1": "must be UTF-8 text, got byte 0xe9",
}


def resolved(folder: Path, content: Any, **flags: Any) -> tuple[dict[str, Any], list[str]]:
    path = folder / "ds.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    config = RunConfig(deepspeed_config=str(path), device="cpu", **flags)
    return load_deepspeed_config(config), deepspeed_notes(config)


def refusal(folder: Path, content: Any, **flags: Any) -> list[str]:
    with pytest.raises(InputError) as caught:
        resolved(folder, content, **flags)
    assert "\n" not in str(caught.value)
    return list(caught.value.problems)


@pytest.mark.parametrize("name", sorted(path.stem for path in CASES.iterdir()))
def test_every_case_is_understood_or_refused(name):
    config = RunConfig(deepspeed_config=str(CASES / f"{name}.json"), device="cpu")
    if name in REFUSED:
        with pytest.raises(InputError) as caught:
            load_deepspeed_config(config)
        assert len(caught.value.problems) == 1
        assert REFUSED[name] in str(caught.value)
        return
    given_to_deepspeed = load_deepspeed_config(config)
    assert "auto" not in json.dumps(given_to_deepspeed).replace("torch_autocast", "")
    assert given_to_deepspeed["train_micro_batch_size_per_gpu"] == 32
    assert given_to_deepspeed["gradient_clipping"] == 0


def test_the_published_file_is_taken_over():
    config = RunConfig(deepspeed_config=str(CASES / "published_like.json"), device="cpu")
    assert deepspeed_notes(config) == [
        "published_like.json: bf16 with auto_cast is dropped, --precision fp32 decides. Add --precision bf16 to cast."
    ]
    config = config.replace(precision="bf16")
    assert load_deepspeed_config(config)["torch_autocast"] == {"enabled": True, "dtype": "bfloat16"}
    assert "replaced by --precision bf16" in deepspeed_notes(config)[0]


def test_every_overridden_value_is_named():
    notes = deepspeed_notes(RunConfig(deepspeed_config=str(CASES / "optimizer_lr.json"), device="cpu"))
    for value in ("4 is", "2 is", "AdamW", "lr 0.003 is", "betas [0.8, 0.99] is dropped", "weight_decay 0.1 is"):
        assert any(value in note for note in notes)
    assert len(notes) == 6


def test_flags_that_agree_with_the_file_are_not_named(tmp_path):
    content = {"train_batch_size": 64, "train_micro_batch_size_per_gpu": 16, "gradient_accumulation_steps": 4}
    content |= {"optimizer": {"type": "Adam", "params": {"lr": 1e-4, "weight_decay": 0.0}}}
    assert resolved(tmp_path, content, batch_size=16, accumulation_steps=4)[1] == []


@pytest.mark.parametrize(
    "text",
    [
        '{"steps_per_print": 7 /* a\n block */ }',
        '{"steps_per_print": 7 // said\n}',
        '{"steps_per_print": 7 # said\n}',
        '\ufeff{"steps_per_print": 7}',
        '{"steps_per_print": 7,}',
        '{"_comment": "//, /* and # stay", "steps_per_print": 7}',
        '\r\n{\r\n"steps_per_print": 7\r\n}\r\n',
        '{"wandb": {"enabled": false, "group": "a, ]", }, "steps_per_print": 7, }',
    ],
)
def test_dialects_of_json_are_read(tmp_path, text):
    assert resolved(tmp_path, text)[0]["steps_per_print"] == 7


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must be JSON"),
        ("{", "must be JSON"),
        ("[1]", "must be a JSON object, got list"),
        ("{,}", "must be JSON"),
        ("null", "must be a JSON object"),
        ('{"a": NaN}', "must be finite, got NaN"),
        ("[" * 100_000, "too many"),
        ('{"fp16": {}, "fp16": {}}', "fp16 must stand once"),
        ('{"steps_per_print": "many"}', "whole number above 0"),
        ("{'steps_per_print': 7}", "must be JSON"),
        (b'{"a": "\xe9"}', "UTF-8"),
        ("{}".encode("utf-16"), "UTF-8"),
        ({"zero_optimization": {"stage": 3}}, "Use stage 2"),
        ({"zero_optimization": {"stage": "two"}}, "must be 0, 1 or 2"),
        ({"zero_optimization": {"stage": True}}, "must be 0, 1 or 2"),
        ({"zero_optimization": True}, "must be an object"),
        ({"zero_optimization": []}, "must be an object"),
        ({"zero_optimization": {"cpu_offload": True}}, "offload_optimizer"),
        ({"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "nvme"}}}, "must be cpu or none"),
        ({"zero_optimization": {"stage": 2, "offload_optimizer": [1]}}, "must be an object"),
        ({"zero_optimization": {"stage": 2, "reduce_bucket_size": "big"}}, "reduce_bucket_size"),
        ({"zero_optimization": {"stage": 2, "reduce_bucket_size": -1}}, "reduce_bucket_size"),
        ({"zero_optimisation": {"stage": 2}}, "Did you mean zero_optimization?"),
        ({"optimiser": {}}, "Did you mean optimizer?"),
        ({"bf16": True}, "must be an object"),
        ({"bf16": {"enabled": "yes"}}, "true, false or"),
        ({"fp16": {"enabled": True}}, "Use --precision fp16"),
        ({"bfloat16": {"enabled": True}}, "Use --precision bf16"),
        ({"torch_autocast": {"enabled": True, "dtype": "float16"}}, "Use --precision fp16"),
        ({"optimizer": "Adam"}, "must be an object"),
        ({"optimizer": {"params": [1]}}, "optimizer.params must be an object"),
        ({"gradient_clipping": "some"}, "must be a number from 0"),
        ({"gradient_clipping": -1}, "must be a number from 0"),
        ({"train_micro_batch_size_per_gpu": 0}, "whole number above 0"),
        ({"train_batch_size": 3.5}, "whole number above 0"),
        ({"activation_checkpointing": {"partition_activations": True}}, "there is one"),
        ({"activation_checkpointing": 7}, "must be an object"),
        ({"flops_profiler": 7}, "DeepSpeed"),
        ('{"gradient_clipping": 1e400}', "numbers must be finite, got 1e400"),
        ('{"train_batch_size": ' + "9" * 5000 + "}", "at most 18 digits, got 5000"),
        ('{"timers": ' + '{"a": ' * 900 + "1" + "}" * 901, "at most 20 levels"),
        ("/* " * 300_000, "must be JSON"),
        ('{"a": "' + '\\"' * 500_000 + "\\", "must be JSON"),
        ({"activation_checkpointing": {"cpu_checkpoint": True}}, "Did you mean cpu_checkpointing?"),
        ({"flops_profiler": {"enable": True}}, "Did you mean enabled?"),
        ({"data_types": {"grad_accum_dtype": "bf16"}}, "must be fp32"),
        ({"data_types": {"param_dtype": ["fp16"]}}, "must be fp32"),
        ({"data_types": {"buffer_dtype": "bf16"}}, "must be fp32"),
        ({"data_types": {"grad_acum_dtype": "fp32"}}, "Did you mean grad_accum_dtype?"),
        ({"flops_profiler": {"enabled": True, "profile_step": "one"}}, "profile_step must be a whole number"),
        ('{"wandb": {"project": "\\ud800"}}', "half of a surrogate pair"),
        (
            {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu", "ratio": 0.3}}},
            "ds.json: Assertion failed, Partial offloading only supported for ZeRO Stage 3. Correct it.",
        ),
        ({"managed_gradient_accumulation": False}, "must be true, got false"),
        ({"prescale_gradients": True}, "prescale_gradients must be false"),
        ({"gradient_predivide_factor": 2.0}, "gradient_predivide_factor must be 1"),
        ({"zero_optimization": {"stage": 0, "offload_optimizer": {"device": "cpu"}}}, "needs stage 1 or 2, got 0"),
        ({"zero_optimization": {"stage": 2, "compute_grad_norm": False}, "gradient_clipping": 1}, "must be true with"),
        ({"zero_optimization": {"stage": 1, "legacy_stage1": True}}, "gone from DeepSpeed"),
        ({"zero_optimization": {"stage": 2, "allgather_bucket_size": 7}}, "must be even, got 7"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(tmp_path, content, message):
    (problem,) = refusal(tmp_path, content)
    assert message in problem


def test_every_problem_is_said_at_once(tmp_path):
    content = {"zero_optimization": {"stage": 3}, "fp16": {"enabled": True}, "optimiser": 1, "gradient_clipping": -1}
    assert len(refusal(tmp_path, content)) == 4
    assert len(refusal(tmp_path, {"zero_optimization": {"stage": 2, "a": 1, "reduce_bucket": 2}, "bf16": True})) == 3


def test_many_or_long_unknown_keys_make_no_long_message(tmp_path):
    problems = refusal(tmp_path, {f"key{number}": 1 for number in range(5000)})
    assert problems[-1].endswith("4992 more keys are no settings of DeepSpeed. Remove them.")
    assert len(problems) == 9
    assert len(refusal(tmp_path, {"k" * 5000: 1})[0]) < 400


@pytest.mark.parametrize("missing", ["nowhere.json", "."])
def test_a_file_that_is_none_is_refused(tmp_path, missing):
    with pytest.raises(InputError, match="must be a readable file"):
        load_deepspeed_config(RunConfig(deepspeed_config=str(tmp_path / missing)))


@pytest.mark.parametrize(
    "key", ["elasticity", "amp", "autotuning", "curriculum_learning", "compression_training", "aio"]
)
def test_blocks_of_other_trainings_are_dropped_and_named(tmp_path, key):
    found, notes = resolved(tmp_path, {key: {"enabled": True}})
    assert key not in found
    assert notes == [f"ds.json: {key} is for another kind of training and was dropped."]
    assert resolved(tmp_path, {key: {"enabled": False}})[1] == []


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ({"dataloader_drop_last": True}, "dataloader_drop_last has no effect here and was dropped"),
        ({"monitor_config": {"tensorboard": {"enabled": True}}}, "loggers stand beside it"),
        ({"checkpoint": {"tag_validation": "Fail"}}, "checkpoints are this project's own"),
        ({"compile": {"deepcompile": True}}, "--compile_mode compiles"),
        ({"activation_checkpointing": {"number_checkpoints": 4}}, "number_checkpoints has no effect here"),
        ({"zero_optimization": {"stage": 2, "zenflow": {}}}, "zenflow is for another kind"),
        ({"zero_optimization": {"stage": 2, "zero_quantized_weights": True}}, "is of stage 3 and was dropped"),
        ({"optimizer": {"type": "Adam", "legacy_fusion": True}}, "optimizer.legacy_fusion true is dropped"),
    ],
)
def test_what_has_no_effect_is_dropped_and_named(tmp_path, content, note):
    found, (said,) = resolved(tmp_path, content)
    assert note in said
    assert not set(content) & set(found) - {"zero_optimization", "activation_checkpointing"}


def test_autocast_of_the_file_is_overridden_by_name(tmp_path):
    block = {"enabled": False, "lower_precision_safe_modules": ["x"]}
    found, notes = resolved(tmp_path, {"torch_autocast": block}, precision="bf16")
    assert notes == ["ds.json: torch_autocast.enabled false is overridden by --precision bf16."]
    assert found["torch_autocast"]["enabled"] is True
    _, notes = resolved(tmp_path, {"torch_autocast": {**block, "enabled": True}}, precision="bf16")
    assert len(notes) == 1
    assert "lower_precision_safe_modules is dropped" in notes[0]


PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "comet": "comet_ml"}


@pytest.mark.parametrize("key", PACKAGES)
@pytest.mark.parametrize("enabled", [True, "true"])
def test_a_logger_without_its_package_is_refused(tmp_path, monkeypatch, key, enabled):
    content = {key: {"enabled": enabled}}
    monkeypatch.setattr(deepspeed_blocks, "find_spec", lambda name: None if name == PACKAGES[key] else name)
    (problem,) = refusal(tmp_path, content)
    assert f"{key}.enabled needs the package {PACKAGES[key]}" in problem
    monkeypatch.setattr(deepspeed_blocks, "find_spec", lambda name: name)
    assert resolved(tmp_path, content)[0][key] == {"enabled": enabled}


def test_values_of_stage_3_are_dropped_and_named_in_stage_2(tmp_path):
    zero = {"stage": 2, "stage3_max_live_parameters": 1e9, "offload_param": {"device": "cpu"}}
    found, notes = resolved(tmp_path, {"zero_optimization": zero})
    assert found["zero_optimization"] == {"stage": 2}
    assert len(notes) == 2


@pytest.mark.parametrize(("flag", "device"), [("off", "cpu"), ("cpu", "cpu"), ("none", None)])
def test_the_flag_decides_on_offload_where_it_is_given(tmp_path, flag, device):
    content = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu", "pin_memory": "auto"}}}
    found, notes = resolved(tmp_path, content, offload_optimizer=flag)
    assert found["zero_optimization"].get("offload_optimizer", {}).get("device") == device
    assert bool(notes) == (flag == "none")


def test_clipping_of_the_file_holds_unless_a_flag_says_otherwise(tmp_path):
    assert resolved(tmp_path, {"gradient_clipping": 1.5})[0]["gradient_clipping"] == 1.5
    found, notes = resolved(tmp_path, {"gradient_clipping": 1.5}, max_grad_norm=0.5)
    assert found["gradient_clipping"] == 0.5
    assert notes == ["ds.json: gradient_clipping 1.5 is overridden by --max_grad_norm 0.5."]


INNER = ["enabled", "stage", "device", "params", "type", "lr", "dtype"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 10**10) | st.sampled_from(["auto", "cpu", "none", "x"]) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["enabled", "stage", "device", "params", "type", "lr", "dtype"]), inner, max_size=3
        )
    ),
    max_leaves=4,
)
KEYS = (
    "zero_optimization optimizer scheduler bf16 fp16 torch_autocast gradient_clipping train_batch_size "
    "activation_checkpointing elasticity flops_profiler steps_per_print data_types checkpoint timers compile "
    "tensorboard zero_allow_untested_optimizer communication_data_type nonsense"
).split()


@example({"activation_checkpointing": {"enabled": ["auto"]}})
@example({"activation_checkpointing": {"enabled": [{"a": "auto"}]}})
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_values_are_resolved_or_refused_in_one_line(tmp_path, content):
    try:
        found, notes = resolved(tmp_path, content)
        said = "".join(notes)
    except InputError as error:
        said, found = str(error), {}
    assert "\n" not in said
    assert '"auto"' not in json.dumps(found)
