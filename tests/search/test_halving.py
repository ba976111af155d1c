import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.decide.clocks.halving import Halving, rank, rungs_of
from search.decide.spend.fidelity import Fidelity
from timellm.contract.config import RunConfig

POINTS = st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=1, max_size=12)


def dominates(one, other):
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other


@given(POINTS)
def test_a_point_is_never_ranked_before_one_that_dominates_it(points):
    order = rank(np.array(points))
    assert sorted(order) == list(range(len(points)))
    for before, one in enumerate(order):
        assert not any(dominates(points[other], points[one]) for other in order[before + 1 :])


def test_the_ends_of_a_front_are_kept_before_the_neighbours_of_its_middle():
    points = np.array([[1.0, 4.0], [1.9, 2.1], [2.0, 2.0], [2.1, 1.9], [4.0, 1.0]])
    assert {0, 4} < set(rank(points)[:3])


def test_the_worse_half_is_stopped_at_a_rung():
    halving = Halving((32, 64))
    assert halving.passes("a", 32, (1.0, 1.0))
    assert not halving.passes("b", 32, (2.0, 2.0))
    assert halving.passes("c", 32, (0.5, 0.5))
    assert halving.passes("a", 64, (0.9, 1.0))
    assert not halving.passes("d", 64, (3.0, 3.0))


def test_reports_between_rungs_change_nothing():
    halving = Halving((32,))
    assert halving.passes("a", 16, (9.0, 9.0))
    assert halving.passes("b", 32, (1.0, 1.0))
    assert halving.passes("b", 40, (99.0, 99.0))


@pytest.mark.parametrize(
    ("fidelity", "rungs"),
    [
        (Fidelity.of_samples(512), (128, 256)),
        (Fidelity.of_samples(32), ()),
        (Fidelity(kind="full"), (3000, 5000)),
    ],
)
def test_rungs_are_a_quarter_and_a_half(fidelity, rungs):
    assert rungs_of(fidelity, RunConfig(train_epochs=10), 1000) == rungs


def test_a_trial_that_is_done_is_not_judged():
    halving = Halving((64, 128), whole=256)
    assert halving.passes("a", 128, (0.5, 100.0))
    assert halving.passes("b", 256, (0.6, 120.0))
    assert not halving.passes("c", 128, (0.7, 130.0))
