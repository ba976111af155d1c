"""A manifest of another's or an edited run folder: every key is held against its type."""

import pytest

from tests.results.synthetic import make_manifest
from timellm.contract.manifest_check import INSIDE, KINDS, manifest_problems

WRONG = (7j, {"a": "x"}, [1], -1, float("nan"), True)
"""Values of which at least one is wrong under every key."""


def test_a_sound_manifest_has_no_problems():
    assert manifest_problems(make_manifest()) == []
    assert manifest_problems({}) == []


@pytest.mark.parametrize("name", KINDS)
def test_a_value_of_another_type_is_named_with_its_key(name):
    found = [manifest_problems({name: value}) for value in (7j, *WRONG)]
    assert found[0]
    assert found[0][0].startswith(f"{name} must be {KINDS[name]}, got ")
    assert manifest_problems({name: None}) == []


@pytest.mark.parametrize(("name", "inner"), [(name, inner) for name, kinds in INSIDE.items() for inner in kinds])
def test_a_value_of_another_type_inside_is_named_with_both_keys(name, inner):
    (problem,) = manifest_problems({name: {inner: 7j}})
    assert problem.startswith(f"{name}.{inner} must be ")


def test_all_problems_are_found_at_once_and_long_values_are_cut():
    problems = manifest_problems({"name": 7, "status": ["x" * 500], "elapsed_seconds": -1})
    assert len(problems) == 3
    assert max(map(len, problems)) < 120


@pytest.mark.parametrize("name", ["$(touch hit)", "", "a b", "Batch_size", "-x", "a\nb", "x" * 200])
def test_the_name_of_a_setting_is_letters_digits_and_underscores(name):
    for manifest in ({"run_config": {name: 1}}, {"space": {"plans": {"any plan": {name: 1}}}}):
        assert len(manifest_problems(manifest)) == 1
