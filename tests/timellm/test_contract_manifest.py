"""manifest.json as a dataclass: what is written comes back, an edited one is held against its types."""

import json
from pathlib import Path

import pytest

from tests.results.synthetic import make_manifest
from timellm.contract.errors import InputError
from timellm.contract.manifest import (
    BackboneFacts,
    Control,
    DataFacts,
    Expected,
    Machine,
    Manifest,
    PlannedFidelity,
    SpaceRecord,
    kinds_of,
    manifest_problems,
)

EARLIER = Path(__file__).parents[1] / "fixtures" / "earlier_run" / "manifest.json"
KINDS = kinds_of(Manifest)
INSIDE = {
    **{"space": SpaceRecord, "fidelity": PlannedFidelity, "expected": Expected},
    **{"machine": Machine, "data": DataFacts, "backbone": BackboneFacts},
}
WRONG = (7j, {"a": "x"}, [1], -1, float("nan"), True)
"""Values of which at least one is wrong under every key."""


def test_a_sound_manifest_has_no_problems():
    assert manifest_problems(make_manifest().to_dict()) == []
    assert manifest_problems({}) == []


@pytest.mark.parametrize("name", KINDS)
def test_a_value_of_another_type_is_named_with_its_key(name):
    found = [manifest_problems({name: value}) for value in (7j, *WRONG)]
    assert found[0]
    assert found[0][0].startswith(f"{name} must be {KINDS[name]}, got ")
    assert manifest_problems({name: None}) == []


@pytest.mark.parametrize(
    ("name", "inner"), [(name, one) for name, record in INSIDE.items() for one in kinds_of(record)]
)
def test_a_value_of_another_type_inside_is_named_with_both_keys(name, inner):
    (problem,) = manifest_problems({name: {inner: 7j}})
    assert problem.startswith(f"{name}.{inner} must be ")


def test_a_value_of_another_type_in_a_list_is_named_with_its_place():
    (problem,) = manifest_problems({"controls": [{"name": "mean"}, {"val_mse": "low"}]})
    assert problem == "controls[1].val_mse must be a finite number of at least 0, got 'low'"


def test_all_problems_are_found_at_once_and_long_values_are_cut():
    problems = manifest_problems({"name": 7, "status": ["x" * 500], "elapsed_seconds": -1})
    assert len(problems) == 3
    assert max(map(len, problems)) < 120


@pytest.mark.parametrize("name", ["$(touch hit)", "", "a b", "Batch_size", "-x", "a\nb", "x" * 200])
def test_the_name_of_a_setting_is_letters_digits_and_underscores(name):
    for manifest in ({"run_config": {name: 1}}, {"space": {"plans": {"any plan": {name: 1}}}}):
        assert len(manifest_problems(manifest)) == 1


@pytest.mark.parametrize("value", ["0.1", -0.1, float("nan"), float("inf"), True, [0.1]])
def test_a_time_weight_that_no_score_can_have_is_refused_with_what_to_do(value):
    message = r"time_weight must be a finite number from 0 to 100, got .*\. Write the weight to score with"
    with pytest.raises(InputError, match=message):
        Manifest.from_json(json.dumps({"time_weight": value}))


def test_a_time_weight_of_zero_is_one_and_a_missing_one_is_the_default():
    assert Manifest.from_json('{"time_weight": 0}').time_weight == 0
    assert Manifest.from_json('{"time_weight": null}').time_weight == Manifest.from_json("{}").time_weight == 0.05


def test_a_manifest_comes_back_from_its_json():
    manifest = make_manifest(fidelity={"kind": "samples", "train_samples": 64, "val_samples": 32}, features=["bf16"])
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert manifest.fidelity == PlannedFidelity(kind="samples", train_samples=64, val_samples=32)
    assert manifest.controls == (Control(name="window mean", val_mse=0.9),)


def test_a_manifest_of_an_earlier_version_loses_nothing_and_lacks_nothing():
    before = json.loads(EARLIER.read_text())
    manifest = Manifest.from_json(EARLIER.read_text())
    after = json.loads(manifest.to_json())

    assert {name: after[name] for name in before if name not in ("expected", "controls")} == {
        name: before[name] for name in before if name not in ("expected", "controls")
    }
    assert manifest.features is None
    assert manifest.expected.spending is None
    assert manifest.devices_per_trial == 1
    assert not manifest.has_random_weights


def test_keys_of_a_later_version_are_kept_as_they_are():
    values = {"name": "a", "of_a_later_version": [1], "machine": {"cores": 2, "npus": 4}}
    after = Manifest.from_json(json.dumps(values)).to_dict()
    assert after["of_a_later_version"] == [1]
    assert after["machine"]["npus"] == 4


def test_text_that_is_no_object_is_refused():
    with pytest.raises(ValueError, match="list in place of an object"):
        Manifest.from_json("[1]")


@pytest.mark.parametrize("time", ["NaT", "", " ", "yesterday", "2020-13-01", "9" * 400])
def test_a_time_is_one(time):
    assert len(manifest_problems({"created_at": time, "finished_at": time})) == 2
