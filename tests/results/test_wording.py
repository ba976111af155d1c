import math

import pytest

from results.analysis.judgement import Difference, Word
from results.analysis.ratios import Ratio
from results.analysis.wording import NOT_TELLING, error_change_words, factor, multiple, percent, signed, weight_words
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


@pytest.mark.parametrize(
    ("is_same", "is_telling", "words"),
    [
        (False, True, "+1.3 % (95 % interval −0.9 to +3.5 %: not shown)"),
        (False, False, NOT_TELLING),
        (True, False, "the same numbers"),
    ],
)
def test_a_change_of_error_is_named_where_errors_tell_something(is_same, is_telling, words):
    found = Difference(ratio=1.0126, low=0.991, high=1.035, seeds=(2021, 2022), word=Word.NOT_SHOWN)
    assert error_change_words(9.0, found, is_same=is_same, is_telling=is_telling) == words


def test_changes_have_a_sign():
    assert percent(-0.42) == "−0.4 %"
    assert error_change_words(1.26, None, is_same=False, is_telling=True) == "+1.3 % (not shown)"
    assert percent(math.nan) == "–"
    assert (signed(0.0001), signed(-0.0712), signed(0.05)) == ("0.000", "−0.071", "+0.050")


def test_a_speed_up_names_its_interval_if_it_is_known():
    assert multiple(Ratio(value=3.1, low=2.9, high=3.3)) == "3.10× as fast (95 % interval 2.90 to 3.30)"
    assert multiple(Ratio(value=3.1, low=math.nan, high=math.nan)) == "3.10× as fast"


def test_the_weight_is_said_in_words():
    assert weight_words(0.05) == "At time weight 0.05, five times faster makes up for 8.4 % more MSE."
