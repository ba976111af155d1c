import dataclasses

import pytest

from timellm.contract.config import RunConfig
from timellm.contract.numbers import TIMELESS, WAYS, numbers_key, numbers_of, same_numbers, times_key, times_of

NAMES = {field.name for field in dataclasses.fields(RunConfig)}


@pytest.mark.parametrize("name", sorted(WAYS))
def test_a_way_to_compute_changes_no_number(name):
    assert name in NAMES
    assert name not in numbers_of({})
    assert name in times_of({})


@pytest.mark.parametrize("name", sorted(TIMELESS))
def test_what_changes_no_time_changes_numbers(name):
    assert name in NAMES
    assert name in numbers_of({})
    assert name not in times_of({})


def test_a_setting_that_nobody_declared_counts_as_changing_both():
    undeclared = NAMES - WAYS - TIMELESS

    assert undeclared <= set(numbers_of({}))
    assert undeclared <= set(times_of({}))
    assert not same_numbers({}, {"a_setting_of_tomorrow": 1})
    assert times_key({}) != times_key({"a_setting_of_tomorrow": 1})


def test_a_missing_setting_takes_its_default():
    assert numbers_key({}) == numbers_key(RunConfig().to_dict())
    assert same_numbers({"llm_layers": RunConfig().llm_layers}, {})


def test_every_scaling_is_none_at_a_global_batch_of_32():
    base = {"batch_size": 16, "accumulation_steps": 2}
    assert same_numbers(base, {**base, "lr_scaling": "sqrt"})
    assert same_numbers(base, {**base, "lr_scaling": "linear"})
    assert not same_numbers({"batch_size": 64}, {"batch_size": 64, "lr_scaling": "sqrt"})


def test_compiled_code_draws_other_masks():
    assert not same_numbers({}, {"compile_mode": "default"})
    control = {"llm_model": "none", "dropout": 0.0}
    assert same_numbers(control, {**control, "compile_mode": "default"})


def test_published_padding_depends_on_the_shape_of_a_batch():
    base = {"prompt_padding": "published"}
    assert not same_numbers(base, {**base, "prompt_prefix": "store"})
    assert not same_numbers(base, {**base, "eval_batch_size": 7})


def test_dropout_in_the_backbone_makes_attention_change_numbers():
    base = {"backbone_dropout": True}
    assert not same_numbers(base, {**base, "attention": "sdpa"})


def test_a_deepspeed_file_counts_by_its_content(tmp_path):
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    first.write_text("{}")
    second.write_text("{}")
    settings = {"deepspeed_config": str(first), "offload_optimizer": "none"}
    assert same_numbers(settings, {**settings, "deepspeed_config": str(second)})
    second.write_text('{"gradient_clipping": 1.0}')
    assert not same_numbers(settings, {**settings, "deepspeed_config": str(second)})
    assert not same_numbers(settings, {**settings, "offload_optimizer": "off"})


def test_loss_scaling_of_deepspeed_is_its_own():
    assert not same_numbers({"precision": "fp16"}, {"precision": "fp16", "offload_optimizer": "none"})


def test_a_device_draws_masks_of_its_own():
    assert not same_numbers({"device": "cpu"}, {"device": "cuda"})


@pytest.mark.parametrize(
    "other", [{"attention": "sdpa"}, {"gradient_checkpointing": True}, {"prompt_prefix": "reuse"}], ids=str
)
def test_what_is_compiled_decides_how_masks_are_drawn(other):
    compiled = {"compile_mode": "default"}
    assert not same_numbers(compiled, {**compiled, **other})
    assert same_numbers(compiled, {**compiled, "num_workers": 2})


def test_validations_on_the_way_choose_a_checkpoint_in_a_full_run_alone():
    assert not same_numbers({}, {"validate_every": 2})
    assert same_numbers({"train_samples": 256}, {"train_samples": 256, "validate_every": 2})


def test_a_fused_optimizer_by_default_takes_the_time_of_one_that_was_asked_for():
    assert times_key({"prompt_prefix": "reuse"}) == times_key({"prompt_prefix": "reuse", "fused_optimizer": True})
    assert times_key({}) != times_key({"fused_optimizer": True})


@pytest.mark.parametrize(
    "odd",
    [{"lr_scaling": "x"}, {"batch_size": -8}, {"batch_size": None}, {"accumulation_steps": "many"}, {"lr_scaling": {}}],
)
def test_values_that_no_run_can_have_have_a_key_of_their_own(odd):
    assert numbers_key(odd) == numbers_key(odd) != numbers_key({})


@pytest.mark.parametrize("path", ["/dev/zero", "a\0b", "~nobody-there/x", "x" * 5000, "/"])
def test_a_deepspeed_file_that_is_none_counts_by_its_path(path):
    assert numbers_of({"deepspeed_config": path})["deepspeed_config"] == path
