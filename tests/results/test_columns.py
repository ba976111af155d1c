import re
from pathlib import Path

import pytest

from timellm.contract.columns import COLUMNS, DTYPES, STATES, knob_column, knob_columns, knob_kind, knob_name
from timellm.contract.result import RunResult

PROMISED = """trial_id state source error val_mse val_mae test_mse test_mae seconds_per_epoch seconds_per_epoch_low
seconds_per_epoch_high is_projected seconds_per_epoch_with_validation seconds_per_batch samples_per_second
startup_seconds compile_seconds validation_seconds total_seconds peak_memory_gib epochs train_samples val_samples
trainable_parameters total_parameters timing_quality is_pareto joint_score speedup_vs_baseline seed started_at
error_from time_from error_seeds val_mse_low val_mse_high"""
OBSERVED = """attention_kernel matmul_dtype data_wait_percent mean_device_utilisation_percent max_device_memory_gib
mean_device_power_watts max_device_temperature_celsius mean_cpu_utilisation_percent max_host_memory_gib"""


def test_the_columns_are_those_promised_in_their_order():
    assert [column.name for column in COLUMNS] == [*PROMISED.split(), *OBSERVED.split()]


def test_what_a_run_observes_of_its_device_are_fields_of_its_result():
    assert set(OBSERVED.split()) <= set(RunResult().to_dict())


def test_every_column_is_described_and_times_and_sizes_have_units():
    for column in COLUMNS:
        assert column.description.endswith(".")
        assert column.kind in DTYPES
        if re.search(r"seconds|gib|samples$|percent|watts|celsius", column.name):
            assert column.unit, column.name


def test_states_are_ordered_from_complete_to_interrupted():
    assert STATES == ("complete", "stopped_early", "out_of_memory", "diverged", "failed", "interrupted")


def test_a_knob_and_its_column_have_each_others_name():
    assert knob_name(knob_column("batch_size")) == "batch_size"
    assert knob_columns(["seed", "config/seed", "config/", "config/lr"]) == ["config/seed", "config/lr"]


@pytest.mark.parametrize(
    ("values", "default", "kind"),
    [
        ([1, 2], None, "integer"),
        (["1", "2"], None, "integer"),
        (["1", "2.5"], None, "number"),
        (["1e-4"], None, "number"),
        ([True, "False"], None, "boolean"),
        (["off", "cpu"], None, "category"),
        (["1_0"], None, "category"),
        ([], None, "category"),
        (["4", "2"], "full", "category"),
        ([1], 0.1, "number"),
        ([True], False, "boolean"),
        ([8], 1, "integer"),
    ],
)
def test_the_kind_of_a_knob_follows_its_default_and_else_its_values(values, default, kind):
    assert knob_kind(values, default) == kind


def test_no_module_of_results_is_named_like_another_top_level_module():
    import importlib.metadata
    import sys

    own = {path.stem for path in (Path(__file__).parents[2] / "results").glob("*.py")} - {"__init__"}

    assert not own & set(sys.stdlib_module_names)
    assert not own & set(importlib.metadata.packages_distributions())
