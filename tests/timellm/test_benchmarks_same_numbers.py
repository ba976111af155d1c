"""The benchmark of equal numbers: which ways it tries, and what it tells."""

import pytest

from benchmarks.same_numbers import (
    PUBLISHED,
    SMALL,
    WAYS,
    exact_table,
    exact_verdict,
    rounded_table,
    rounded_verdict,
)
from timellm.contract.config import RunConfig
from timellm.contract.numbers import same_numbers


@pytest.mark.parametrize("changes", [{}, SMALL], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", WAYS)
def test_every_way_is_declared_to_keep_the_numbers(name, changes):
    base = RunConfig(**{**PUBLISHED, **changes})
    assert same_numbers(base.to_dict(), base.replace(**WAYS[name]).to_dict())


@pytest.mark.parametrize(("mse", "told"), [(1.00005, "all are the same numbers"), (1.0002, "NOT all are")])
def test_a_difference_above_the_tolerance_is_told_with_its_way(mse, told):
    errors = {"published": (1.0, 0.8), "attention sdpa": (mse, 0.8)}
    verdict = exact_verdict(errors)
    assert "(attention sdpa)" in verdict
    assert told in verdict
    assert [row[0] for row in exact_table(errors).rows] == ["published", "attention sdpa"]


@pytest.mark.parametrize(("shift", "told"), [(0.001, "no way is told from"), (0.1, "NOT the same: prompt reused")])
def test_a_way_that_shifts_the_errors_of_all_seeds_is_told_from_the_noise(shift, told):
    published = [1.0, 1.01, 0.99, 1.02, 0.98]
    errors = {"published": published, "prompt reused": [value * (1 + shift) for value in published]}
    assert told in rounded_verdict(errors)
    row = dict(zip(rounded_table(errors).headings, rounded_table(errors).rows[1], strict=True))
    assert row["mean difference"] == f"{shift:+.2%}"
    assert row["standard deviation"] == "0.00%"
