"""Every setting that is declared to change no number is trained with, and gives the numbers that it should."""

import itertools
from typing import Any

import numpy as np
import pytest

from tests.timellm.tiny_runs import CPU, set_up, tiny_config
from timellm.contract.config import SETTINGS
from timellm.contract.numbers import WAYS, same_numbers
from timellm.run.evaluate import evaluate

STEPS = 50
TOLERANCE = 1e-4
"""Largest relative difference of a loss or an error that rounding may make in fp32."""

VALUES: dict[str, tuple[Any, ...]] = {
    "attention": ("eager", "sdpa"),
    "eval_batch_size": (None, 7),
    "fused_optimizer": (None, True, False),
    "gradient_checkpointing": (False, True),
    "num_workers": (0, 1),
    "offload_optimizer": ("off", "none", "cpu"),
    "pin_memory": (True, False),
    "prefetch_factor": (2, 5),
    "prompt_prefix": ("recompute", "reuse", "store"),
    "prompt_store_gib": (4.0, 0.0005),
    "warmup_steps": (2, 5),
}
"""Values of every setting that is declared to change no number, its default first."""

ON_A_GPU_ALONE = {"step_graph"}
"""Settings that a CPU computes nearly as if they were not given; `test_static_step` compares their static step."""

NEEDS = {
    "pin_memory": {"num_workers": 1},
    "prefetch_factor": {"num_workers": 1},
    "prompt_store_gib": {"prompt_prefix": "store"},
}
"""Where a setting does something at all."""

ALONE = [
    {name: value, **NEEDS.get(name, {})} for name, values in VALUES.items() for value in values[1:]
]  # fmt: skip


def covering_rows(values: dict[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Few rows in which every two values of two settings meet, found greedily."""
    items = [(name, value) for name, several in values.items() for value in several]
    left = {frozenset(pair) for pair in itertools.combinations(items, 2) if pair[0][0] != pair[1][0]}
    rows = []
    while left:
        row = dict(sorted(min(left, key=lambda pair: sorted(map(str, pair))), key=str))
        for name, several in values.items():
            if name not in row:
                met = {value: sum(frozenset({(name, value), one}) in left for one in row.items()) for value in several}
                row[name] = max(several, key=lambda value: met[value])
        left -= {frozenset(pair) for pair in itertools.combinations(row.items(), 2)}
        rows.append(row)
    return rows


def config_of(folder, changes):
    tiny = {"llm_layers": 1, "num_prototypes": 20, "batch_size": 2, "prompt": "dwt-minimal", "dwt_prompt_level": 2}
    return tiny_config(folder, "llama", **{**tiny, **changes})


def numbers_after_training(folder, **changes):
    """The losses of the steps, and the validation's errors after them."""
    config = config_of(folder, changes)
    prepared, stepper, losses = set_up(config)
    stepper.train(prepared.windows.passes[0][: STEPS * config.global_batch])
    scores = evaluate(
        prepared.model,
        prepared.validation,
        prepared.windows.validation[:40],
        config.eval_batch_size or config.batch_size,
        CPU,
        shares_prototypes=config.prompt_prefix != "recompute",
    )
    assert len(losses) == STEPS
    return np.array([*losses, scores.mse, scores.mae])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module")
def expected(folder):
    return numbers_after_training(folder)


def test_every_setting_declared_to_change_no_number_is_tried_with_all_its_choices():
    assert set(VALUES) == WAYS - ON_A_GPU_ALONE
    for name, values in VALUES.items():
        assert set(SETTINGS[name].choices) <= set(values)


@pytest.mark.deepspeed
@pytest.mark.parametrize("changes", ALONE, ids=str)
def test_a_setting_declared_to_change_no_number_changes_none(folder, expected, changes):
    assert same_numbers(config_of(folder, {}).to_dict(), config_of(folder, changes).to_dict())

    np.testing.assert_allclose(numbers_after_training(folder, **changes), expected, rtol=TOLERANCE)


@pytest.mark.deepspeed
@pytest.mark.parametrize("changes", covering_rows(VALUES), ids=lambda changes: " ".join(map(str, changes.values())))
def test_no_two_of_them_change_a_number_together(folder, expected, changes):
    np.testing.assert_allclose(numbers_after_training(folder, **changes), expected, rtol=TOLERANCE)


@pytest.mark.parametrize(
    "changes",
    [{"dropout": 0.0}, {"precision": "bf16"}, {"prompt_digits": "2"}, {"accumulation_steps": 2, "batch_size": 1}],
    ids=str,
)
def test_a_setting_declared_so_wrongly_would_be_found(folder, expected, changes):
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        np.testing.assert_allclose(numbers_after_training(folder, **changes), expected, rtol=TOLERANCE)


@pytest.mark.slow
def test_compiled_code_draws_other_masks_so_it_is_not_declared_so(folder, expected):
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        np.testing.assert_allclose(numbers_after_training(folder, compile_mode="default"), expected, rtol=TOLERANCE)


def test_the_rows_let_every_two_values_meet():
    rows = covering_rows(VALUES)

    for one, other in itertools.combinations(VALUES, 2):
        for pair in itertools.product(VALUES[one], VALUES[other]):
            assert any((row[one], row[other]) == pair for row in rows)
    assert len(rows) <= 16
