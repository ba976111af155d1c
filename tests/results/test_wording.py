import math

import pytest

from results.analysis.ratios import Ratio
from results.analysis.wording import change_words, factor, multiple, percent, signed, weight_words
from timellm.contract.words import seconds_words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2744, "0.274 s"),
        (14.33, "14.3 s"),
        (99.96, "1 min 40 s"),
        (200, "3 min 20 s"),
        (3599.9, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (math.nan, "–"),
        (None, "–"),
    ],
)
def test_durations_are_in_their_natural_unit(seconds, words):
    assert seconds_words(seconds) == words


@pytest.mark.parametrize(("value", "words"), [(14.13, "14.1"), (3.123, "3.12"), (0.867, "0.87"), (312.4, "312")])
def test_factors_have_three_figures(value, words):
    assert factor(value) == words


def test_changes_have_a_sign_and_a_spread_if_it_is_known():
    assert percent(-0.42) == "−0.4 %"
    assert change_words(1.26, 0.4) == "+1.3 % ± 0.4 %"
    assert change_words(1.26, math.nan) == "+1.3 %"
    assert percent(math.nan) == "–"
    assert (signed(0.0001), signed(-0.0712), signed(0.05)) == ("0.000", "−0.071", "+0.050")


def test_a_speed_up_names_its_interval_if_it_is_known():
    assert multiple(Ratio(value=3.1, low=2.9, high=3.3)) == "3.10× as fast (95 % interval 2.90 to 3.30)"
    assert multiple(Ratio(value=3.1, low=math.nan, high=math.nan)) == "3.10× as fast"


def test_the_weight_is_said_in_words():
    assert weight_words(0.05) == "At time weight 0.05, five times faster makes up for 8.4 % more MSE."
