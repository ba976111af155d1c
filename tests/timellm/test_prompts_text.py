import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timellm.contract.config import RunConfig
from timellm.prompts import prompt_texts
from timellm.prompts.decimals import written
from timellm.prompts.statistics import normalise_windows

_X = torch.sin(torch.arange(96, dtype=torch.float32) / 5)[None]


def _text(**settings: str | int) -> str:
    return prompt_texts(RunConfig(**settings), normalise_windows(_X), "Waves.")[0]


def test_official_prompt_has_no_space_after_the_description():
    assert _text().startswith(
        "<|start_prompt|>Dataset description: Waves.Task description: forecast the next 96 steps given the previous 96 "
        "steps information; Input statistics: min value -1."
    )
    assert _text().endswith("]<|<end_prompt>|>")


def test_lengths_of_the_run_are_written():
    assert "forecast the next 24 steps given the previous 96 steps" in _text(pred_len=24)


@pytest.mark.parametrize(("digits", "decimals"), [("4", 4), ("2", 2)])
def test_fewer_digits_make_shorter_numbers(digits: str, decimals: int):
    text = _text(prompt_digits=digits)
    number = text.split("max value ")[1].split(",")[0]
    assert len(number.split(".")[1]) == decimals
    assert float(number) == pytest.approx(float(_text().split("max value ")[1].split(",")[0]), abs=10**-decimals)


def test_braces_in_a_description_stay_as_they_are():
    for prompt in ("official", "dwt-minimal", "dwt-balanced"):
        assert "{data} {0}" in prompt_texts(RunConfig(prompt=prompt), normalise_windows(_X), "{data} {0}")[0]


def test_no_prompt_has_no_text():
    with pytest.raises(ValueError, match="has no prompt texts"):
        _text(prompt="none")


@given(st.floats(-100, 100, width=32))
def test_full_numbers_are_those_of_the_float32_as_float64(value: float):
    assert float(written(np.array([value], np.float32), "full")[0]) == np.float64(np.float32(value))


@given(st.floats(-100, 100, width=32))
def test_fixed_numbers_are_never_minus_zero(value: float):
    assert written(np.array([value], np.float32), "2")[0] not in {"-0.00", "-0.0"}
