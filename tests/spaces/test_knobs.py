import math

import pytest

from spaces.knobs import GUIDE_BASELINE, KNOBS, KNOWN, value_text
from timellm.contract.config import SETTINGS, RunConfig
from timellm.contract.declarations import FEATURES, MOST
from timellm.contract.errors import InputError


def values_to_try(name):
    """Values on both sides of every limit, and of other types."""
    step = 1 if SETTINGS[name].kind is int else 1e-9
    ends = [SETTINGS[name].kind(limit.end) for limit in SETTINGS[name].limits]
    around = [end + side * step for end in ends for side in (-1, 0, 1)]
    return [*SETTINGS[name].choices, *around, MOST, MOST + 1, "nonsense", math.nan, True]


@pytest.mark.parametrize("name", KNOWN)
def test_a_space_and_a_run_refuse_the_same_values(name):
    for value in values_to_try(name):
        refused_by_run = f"{name} must be" in problems_of({"seq_len": MOST, name: value})
        assert bool(KNOWN[name].problem(value)) == refused_by_run, value


def problems_of(settings):
    try:
        RunConfig.from_dict(settings)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("pct_start", 0.0, "must be above 0, got 0.0"),
        ("dropout", 0.9995, None),
        ("dropout", 1.0, "must be below 1, got 1.0"),
        ("learning_rate", 1e-13, None),
        ("learning_rate", 0.0, "must be above 0, got 0.0"),
    ],
)
def test_limits_that_had_drifted_are_the_same_for_a_space_and_a_run(name, value, message):
    assert KNOWN[name].problem(value) == message
    assert problems_of({name: value}) == (f"{name} {message}." if message else "")


def test_the_guides_baseline_has_a_valid_value_of_every_knob():
    assert set(GUIDE_BASELINE) == set(KNOBS)
    assert not {
        name: KNOBS[name].problem(value) for name, value in GUIDE_BASELINE.items() if KNOBS[name].problem(value)
    }


def test_the_guides_baseline_is_the_runs_default_but_for_the_loader_and_the_optimizer_kernel():
    defaults = RunConfig().to_dict()
    different = {name for name, value in GUIDE_BASELINE.items() if defaults[name] != value}
    assert different == {"num_workers", "fused_optimizer"}
    assert RunConfig().uses_fused_optimizer is False


def test_needs_name_values_and_features_that_exist():
    for known in KNOWN.values():
        for value, features in known.needs.items():
            assert value in known.choices or value in ("true", "false")
            assert set(features) <= set(FEATURES)
        assert set(known.instead) <= set(known.choices)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("batch_size", "64", 64),
        ("learning_rate", "3e-4", 3e-4),
        ("use_swt", "true", True),
        ("use_swt", "False", False),
        ("prompt_digits", "4", "4"),
        ("precision", "bf16", "bf16"),
    ],
)
def test_a_value_is_read_as_the_command_line_spells_it(name, text, value):
    parsed = KNOWN[name].parse(text)
    assert parsed == value
    assert type(parsed) is type(value)
    assert KNOWN[name].problem(parsed) is None


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("batch_size", "0", "must be at least 1, got 0"),
        ("batch_size", "many", "must be a whole number, got 'many'"),
        ("batch_size", "1.5", "must be a whole number, got '1.5'"),
        ("dropout", "1.2", "must be below 1, got 1.2"),
        ("dropout", "nan", "must be finite, got nan"),
        ("batch_size", str(2**64), "must be a whole number of at most 64 bits, got one of 65 bits"),
        ("batch_size", "1" + "0" * 400, "must be a whole number of at most 64 bits, got one of 1329 bits"),
        ("use_swt", "maybe", "must be true or false, got 'maybe'"),
        ("precision", "int8", "must be one of fp32, fp16, bf16, tf32, got 'int8'"),
    ],
)
def test_a_value_out_of_range_is_named(name, text, message):
    assert KNOWN[name].problem(KNOWN[name].parse(text)) == message


def test_a_value_is_spelt_as_in_toml():
    assert [value_text(value) for value in (True, 8, 0.5, "bf16")] == ["true", "8", "0.5", "bf16"]
