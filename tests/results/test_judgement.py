import math

import numpy as np
import pytest

from benchmarks import judgement
from results.analysis.judgement import (
    UNKNOWN_SPREAD,
    Spread,
    Word,
    difference,
    error_interval,
    is_telling,
    paired_spread,
    pooled_spread,
)


def tables(difference=0.0, own=0.01, shared=0.02, sets=3, seeds=3, seed=0):
    """Errors of a baseline and of sets that differ from it by a planted share."""
    generator = np.random.default_rng(seed)
    common = generator.normal(0, shared, seeds)
    return {
        name: {
            2021 + index: 0.8 * math.exp((name != "baseline") * math.log1p(difference) + common[index] + noise)
            for index, noise in enumerate(generator.normal(0, own, seeds))
        }
        for name in ["baseline", *(f"set {index}" for index in range(1, sets))]
    }


def test_the_spread_is_pooled_over_every_set_with_repeats():
    repeats = {"a": {1: 1.0, 2: math.e}, "b": {1: 5.0, 2: 5.0}, "c": {1: 9.0}}

    spread = pooled_spread(repeats)

    assert spread.degrees == 2
    assert spread.deviation == pytest.approx(0.5)
    assert pooled_spread({"a": {1: 1.0}, "b": {2: 2.0}}) is None


def test_what_a_seed_does_to_every_set_is_no_noise_of_a_paired_difference():
    repeats = {"a": {1: 1.0, 2: 2.0, 3: 0.5}, "b": {1: 1.1, 2: 2.2, 3: 0.55}}

    spread = paired_spread(repeats)

    assert spread.degrees == 2
    assert spread.deviation == pytest.approx(0.0, abs=1e-9)
    assert pooled_spread(repeats).deviation > 0.5


def test_a_difference_is_taken_over_the_seeds_that_both_were_trained_with():
    repeats = {"baseline": {1: 1.0, 2: 1.0, 3: 1.0}, "other": {2: 1.1, 3: 1.1, 4: 9.0}}

    found = difference(repeats, "other", "baseline")

    assert found.seeds == (2, 3)
    assert found.percent == pytest.approx(10)


def test_the_seed_that_chose_a_candidate_is_left_out_where_others_remain():
    repeats = {"baseline": {1: 1.0, 2: 1.0}, "lucky": {1: 0.5, 2: 1.1}}

    assert difference(repeats, "lucky", "baseline", chosen_by=1).seeds == (2,)


def test_the_seed_that_chose_a_candidate_never_shows_alone_that_it_is_no_worse():
    repeats = {**tables(), "lucky": {2021: 0.1}, "bad": {2021: 9.0}}

    assert difference(repeats, "lucky", "baseline", chosen_by=2021).word == Word.NOT_SHOWN
    assert difference(repeats, "lucky", "baseline").word == Word.NO_WORSE
    assert difference(repeats, "bad", "baseline", chosen_by=2021).word == Word.WORSE


@pytest.mark.parametrize(("planted", "word"), [(-0.1, Word.NO_WORSE), (0.1, Word.WORSE)])
def test_a_great_difference_is_called_by_its_name(planted, word):
    assert difference(tables(planted), "set 1", "baseline", chosen_by=2021).word == word


def test_word_and_interval_agree():
    for seed in range(50):
        found = difference(tables(0.01, seed=seed), "set 1", "baseline", chosen_by=2021)
        assert found.low < found.ratio < found.high
        assert (found.word == Word.NO_WORSE) == (found.high <= 1.02)
        assert found.word != Word.WORSE or found.low > 1


def test_without_repeats_nothing_is_shown():
    found = difference({"baseline": {1: 1.0}, "other": {1: 5.0}}, "other", "baseline")

    assert found.word == Word.NOT_SHOWN
    assert math.isnan(found.low)
    assert difference({"baseline": {1: 1.0}, "other": {2: 1.0}}, "other", "baseline") is None


def test_a_set_is_no_worse_than_itself():
    assert difference({"baseline": {1: 1.0}}, "baseline", "baseline").word == Word.NO_WORSE


def test_an_errors_interval_holds_its_mean_and_narrows_with_its_seeds():
    repeats = tables()
    (low, high), (wide_low, wide_high) = (
        error_interval(errors, "set 1") for errors in (repeats, {**repeats, "set 1": {2021: repeats["set 1"][2021]}})
    )

    assert low < 0.8 < high
    assert wide_high / wide_low > high / low
    assert error_interval({"a": {1: 1.0}}, "a") is None


@pytest.mark.parametrize(
    ("error", "steps", "naive", "spread", "holds", "reason"),
    [
        (0.8, 40, {"last value": 1.5, "window mean": 0.9}, Spread(0.02, 2), True, "below the forecast 'window mean'"),
        (0.8, 31, {"window mean": 0.9}, Spread(0.02, 2), False, "31 optimizer steps, but at least 32"),
        (0.8, 40, {"window mean": 0.81}, Spread(0.02, 2), False, "more than the spread of its seeds, 2.0 %"),
        (0.8, 40, {"window mean": 0.7}, Spread(0.02, 2), False, "14.3 % above the forecast"),
        (0.8, 40, {}, Spread(0.02, 2), False, "not compared with forecasts"),
        (0.8, 40, {"window mean": 0.8 * math.exp(UNKNOWN_SPREAD) * 0.99}, None, False, "only one seed"),
        (0.8, 40, {"window mean": 0.8 * math.exp(UNKNOWN_SPREAD) * 1.01}, None, True, "Errors are telling"),
    ],
)
def test_an_error_tells_only_below_the_controls_by_more_than_its_spread(error, steps, naive, spread, holds, reason):
    telling = is_telling(error, steps, naive, spread)

    assert telling.holds == holds
    assert reason in telling.reason


def test_no_worse_is_wrong_in_at_most_one_of_twenty_of_made_up_tables():
    noise = judgement.Noise(0.0144, 0.0094)

    words, _ = judgement.judged(judgement.CASES[0], 0.02, noise, 400, np.random.default_rng(1))

    assert words[Word.NO_WORSE] <= 0.05


def test_the_benchmark_records_every_case_and_its_verdict(tmp_path):
    output = tmp_path / "judgement.md"

    judgement.Judgement().run(["--tables", "20", "--output", str(output)])

    assert "| 3 seeds, 2 candidates of 12 sets | 10 % | 0.0 % | 100.0 % | 0.0 % |" in output.read_text()
