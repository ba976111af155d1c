"""Whatever a space can propose either trains or is refused with a reason: a pairwise covering set, tiny backbone."""

import functools
import itertools
import random

import pytest

from spaces import Hardware, InputError, Space, load_space, resolve
from tests.timellm.tiny_runs import options, tiny_config
from timellm.run.training import TrainingRun

CANDIDATES = 60
SAMPLE = 12
SMALL = {"batch_size": 16, "accumulation_steps": 2, "llm_layers": 3, "num_workers": 2, "train_epochs": 1}
"""Largest value of a knob here, for the tiny backbone's sake."""


def this_machine() -> Hardware:
    return Hardware(
        cores=2, features=frozenset({"bf16", "compiler", "deepspeed", "causal"}), llm_layers=3, hidden_size=48
    )


def pairs_of(settings):
    return set(itertools.combinations(sorted(settings.items(), key=str), 2))


def random_settings(space: Space, generator: random.Random):
    chosen = {}
    for knob in space.knobs:
        if knob.is_active(space.settings(chosen)):
            ends = knob.ends
            value = generator.choice(knob.values) if ends is None else generator.choice(ends)
            chosen[knob.name] = min(value, SMALL[knob.name]) if knob.name in SMALL else value
    return space.settings(chosen)


@functools.cache
def covering_settings(*, is_quick: bool = False):
    """Settings in which every pair of values that occurs among many random ones occurs."""
    space, generator = full_space(), random.Random(0)
    pool = [random_settings(space, generator) for _ in range(1500)]
    if is_quick:
        pool = [settings for settings in pool if settings["compile_mode"] == "off"]
    left = set().union(*map(pairs_of, pool))
    chosen = []
    while left:
        best = max(
            generator.sample(pool, min(CANDIDATES, len(pool))), key=lambda settings: len(pairs_of(settings) & left)
        )
        if pairs_of(best) & left:
            chosen.append(best)
            left -= pairs_of(best)
        elif not any(pairs_of(settings) & left for settings in pool):
            break
    return chosen


def full_space() -> Space:
    return resolve(load_space("full"), this_machine())[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


def trains_or_is_refused(folder, path, settings):
    reason = full_space().exclusion(settings)
    if reason:
        return
    try:
        config = tiny_config(folder, **{**settings, "train_samples": 24, "val_samples": 8, "seq_len": 64})
    except InputError:
        return
    result = TrainingRun(config, options(path, min_timed_steps=1)).run()
    assert result.state == "complete", (settings, result.error)
    assert result.seconds_per_epoch > 0


@pytest.mark.parametrize("number", range(SAMPLE))
def test_a_combination_trains_or_is_refused_with_a_reason(folder, tmp_path, number):
    trains_or_is_refused(folder, tmp_path, covering_settings(is_quick=True)[number])


@pytest.mark.slow
@pytest.mark.timeout(14400)
def test_every_pair_of_values_trains_or_is_refused_with_a_reason(folder, tmp_path):
    for number, settings in enumerate(covering_settings()):
        path = tmp_path / str(number)
        path.mkdir()
        trains_or_is_refused(folder, path, settings)
