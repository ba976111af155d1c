import itertools

from hypothesis import given
from hypothesis import strategies as st

from spaces.space import Exclusion, Knob, Space

SPACE = Space(
    name="test",
    fixed={"train_epochs": 1},
    knobs=(
        Knob(name="precision", values=("fp32", "bf16")),
        Knob(name="use_swt", values=(False, True)),
        Knob(name="swt_level", values=(1, 2, 3), when={"use_swt": (True,)}),
    ),
    baseline={"precision": "fp32", "use_swt": False, "swt_level": 3},
    exclusions=(Exclusion(settings={"precision": "bf16", "swt_level": 1}, reason="It is too coarse."),),
)


def test_a_knob_that_does_not_count_has_the_baselines_value():
    assert SPACE.settings({"precision": "bf16", "use_swt": False, "swt_level": 1})["swt_level"] == 3
    assert SPACE.settings({"precision": "bf16", "use_swt": True, "swt_level": 1})["swt_level"] == 1
    assert "swt_level" not in SPACE.active(SPACE.settings({"use_swt": False}))


def test_configurations_are_distinct_and_leave_out_the_excluded():
    found = list(SPACE.configurations())
    assert len(found) == 2 * 1 + 2 * 3 - 1
    assert all(one != other for one, other in itertools.combinations(found, 2))
    assert SPACE.exclusion({"precision": "bf16", "swt_level": 1}) == "It is too coarse."


def test_true_and_one_are_different_values():
    assert not Knob(name="use_swt", values=(True,)).holds(1)
    assert not Knob(name="swt_level", values=(1,)).holds(True)


def test_a_range_holds_its_ends():
    knob = Knob(name="d_ff", low=8, high=64, log=True, is_whole=True)
    assert knob.holds(8)
    assert knob.holds(64)
    assert not knob.holds(65)
    assert not knob.holds(8.5)


@given(st.fixed_dictionaries({name: st.sampled_from(SPACE.knob(name).values) for name in SPACE.baseline}))
def test_settings_are_stable_under_being_completed_again(values):
    settings = SPACE.settings(values)
    assert SPACE.settings(settings) == settings
    assert SPACE.settings(SPACE.active(settings)) == settings
