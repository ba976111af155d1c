import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.timellm.tiny_runs import set_up, tiny_config
from timellm.contract.errors import InputError
from timellm.machine.launcher import (
    check_alone,
    check_launcher,
    forget_group,
    is_launched,
    taken_over,
    unheeded,
    without_launcher_settings,
)
from timellm.machine.process import process_rank, world_size

GROUP = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
BF16 = {"ACCELERATE_MIXED_PRECISION": "bf16"}
DEEPSPEED = {"ACCELERATE_USE_DEEPSPEED": "true"}


@pytest.mark.parametrize(
    ("environment", "values"),
    [
        ({}, {}),
        ({"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "NO", "ACCELERATE_USE_CPU": "false"}, {}),
        (BF16, {"precision": "bf16"}),
        ({"ACCELERATE_MIXED_PRECISION": "fp16"}, {"precision": "fp16"}),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1"}, {}),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, {"accumulation_steps": 4}),
        ({"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, {"compile_mode": "default"}),
        (
            {"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR", "ACCELERATE_DYNAMO_MODE": "max-autotune"},
            {"compile_mode": "max-autotune"},
        ),
        ({"ACCELERATE_USE_CPU": "True"}, {"device": "cpu"}),
        ({**DEEPSPEED, "ACCELERATE_DEEPSPEED_CONFIG_FILE": "ds.json"}, {"deepspeed_config": "ds.json"}),
        ({**DEEPSPEED, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}, {"offload_optimizer": "none"}),
        ({**DEEPSPEED, "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"}, {"offload_optimizer": "cpu"}),
        ({"ACCELERATE_GRADIENT_CLIPPING": "1.0"}, {}),
    ],
)
def test_what_a_flag_could_say_is_taken_over_and_named(environment, values):
    found, notes = taken_over({}, environment)
    assert found == values
    assert len(notes) == len(values)
    for name, value in values.items():
        assert f"is taken as --{name} {value}." in notes[0]


@pytest.mark.parametrize(("text", "norm"), [("1.0", 1.0), ("0.5", 0.5), ("none", None), ("auto", None), ("0", None)])
def test_clipping_of_a_launcher_is_taken_over(text, norm):
    values, notes = taken_over({}, {**DEEPSPEED, "ACCELERATE_GRADIENT_CLIPPING": text})
    assert values.get("max_grad_norm") == norm
    assert (f"--gradient_clipping {text} is taken as --max_grad_norm {norm}." in notes[-1]) == (norm is not None)


def test_a_flag_overrides_the_launcher_and_both_are_named():
    values, notes = taken_over({"precision": "fp32"}, BF16)
    assert values == {}
    assert notes == ["accelerate launch --mixed_precision bf16 is overridden by --precision fp32."]
    assert taken_over({"precision": "bf16"}, BF16) == ({}, [])


@pytest.mark.parametrize(
    "environment",
    [
        {"ACCELERATE_USE_FSDP": "true"},
        {"ACCELERATE_USE_MEGATRON_LM": "1"},
        {"ACCELERATE_DYNAMO_BACKEND": "EAGER"},
        {"ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "cpu"},
    ],
)
def test_what_has_no_effect_is_named(environment):
    values, notes = taken_over({}, environment)
    assert values == {}
    assert "has no effect here" in notes[0]


@pytest.mark.parametrize(
    "environment",
    [
        {"ACCELERATE_MIXED_PRECISION": "fp8"},
        {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "many"},
        {**DEEPSPEED, "ACCELERATE_GRADIENT_CLIPPING": "much"},
        {**DEEPSPEED, "ACCELERATE_GRADIENT_CLIPPING": "nan"},
        {**DEEPSPEED, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
        {**DEEPSPEED, "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "nvme"},
    ],
)
def test_what_no_run_can_do_is_refused(environment):
    with pytest.raises(InputError):
        taken_over({}, environment)


def test_nothing_of_the_launcher_acts_unseen(tmp_path, monkeypatch):
    """Accelerate reads accumulation and compilation from the environment, where no flag shows them."""
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "EAGER")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    _, stepper, _ = set_up(tiny_config(tmp_path))
    accelerator = stepper.engine.accelerator
    assert accelerator.gradient_accumulation_steps == 1
    assert accelerator.mixed_precision == "no"
    assert str(accelerator.state.dynamo_plugin.backend.value).lower() == "no"
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "bf16"


def test_hidden_settings_come_back(monkeypatch):
    monkeypatch.setenv("FSDP_VERSION", "2")
    with without_launcher_settings():
        assert "FSDP_VERSION" not in os.environ
    assert os.environ["FSDP_VERSION"] == "2"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": ""}, "WORLD_SIZE must be a whole number from 1, got ''"),
        ({"WORLD_SIZE": "two"}, "got 'two'"),
        ({"WORLD_SIZE": "0"}, "got '0'"),
        ({"RANK": "-1"}, "RANK must be a whole number from 0"),
        ({"LOCAL_RANK": ""}, "LOCAL_RANK must be a whole number"),
        ({"WORLD_SIZE": "2"}, "RANK, MASTER_ADDR, MASTER_PORT must be set too"),
        ({**GROUP, "MASTER_ADDR": ""}, "MASTER_ADDR must be set too"),
        ({**GROUP, "RANK": "2"}, "RANK must be below WORLD_SIZE 2, got 2"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "mpirun started 4 processes"),
        ({"PMI_SIZE": "2"}, "torchrun --nproc_per_node 2"),
        ({"SLURM_STEP_NUM_TASKS": "8"}, "srun started 8 processes"),
        ({**GROUP, "MASTER_PORT": "many"}, "MASTER_PORT must be from 1 to 65535, got 'many'"),
        ({"RANK": "5"}, "RANK must be below WORLD_SIZE 1, got 5"),
        ({"RANK": "1", "WORLD_SIZE": "1"}, "RANK must be below WORLD_SIZE 1, got 1"),
    ],
)
def test_processes_that_would_not_find_each_other_are_refused(environment, message):
    with pytest.raises(InputError) as caught:
        check_launcher(environment)
    assert message in str(caught.value)


@pytest.mark.parametrize("environment", [{}, GROUP, {"WORLD_SIZE": "1", "RANK": "0"}, {"OMPI_COMM_WORLD_SIZE": "1"}])
def test_a_whole_environment_is_accepted(environment):
    check_launcher(environment)


@pytest.mark.parametrize("environment", [{**GROUP}, {"OMPI_COMM_WORLD_SIZE": "4"}, {"SLURM_STEP_NUM_TASKS": "2"}])
def test_what_one_process_does_is_refused_to_several(environment):
    with pytest.raises(InputError, match=r"A search is one process, got a launcher's \d\. Start it with python\."):
        check_alone(environment, "A search", "Start it with python.")
    check_alone({"WORLD_SIZE": "1", "RANK": "0"}, "A search", "")


def test_a_search_says_what_a_launcher_cannot_set_for_it():
    assert unheeded(BF16) == [
        "accelerate launch --mixed_precision bf16 has no effect on a search. Use --set precision=bf16."
    ]
    assert unheeded({}) == []


def test_what_a_search_starts_is_no_part_of_a_launchers_group(monkeypatch):
    for name, value in {**GROUP, "TORCHELASTIC_RUN_ID": "1"}.items():
        monkeypatch.setenv(name, value)
    forget_group()
    assert not {*GROUP, "TORCHELASTIC_RUN_ID"} & set(os.environ)


@pytest.mark.parametrize("names", [["LOCAL_RANK"], ["RANK", "WORLD_SIZE"], ["RANK", "LOCAL_RANK", "MASTER_PORT"]])
def test_a_part_of_a_launchers_variables_joins_nobody(monkeypatch, names):
    for name in names:
        monkeypatch.setenv(name, "1" if name == "WORLD_SIZE" else "0")
    assert not is_launched(os.environ)
    with without_launcher_settings():
        assert not set(names) & set(os.environ)
    assert set(names) <= set(os.environ)


@given(st.text(max_size=4))
def test_no_variable_of_a_launcher_is_a_traceback(text):
    try:
        check_launcher({"WORLD_SIZE": text, "RANK": text})
    except InputError as error:
        assert "WORLD_SIZE" in str(error)  # noqa: PT017


def test_variables_that_are_no_numbers_count_as_none(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "")
    monkeypatch.setenv("RANK", "x")
    assert (world_size(), process_rank()) == (1, 0)
