import random

import optuna
import pytest

from search.decide.propose.parameters import encode, parameters, suggest
from spaces import Knob, Space

SPACE = Space(
    name="test",
    fixed={"train_epochs": 1},
    knobs=(
        Knob(name="precision", values=("fp32", "bf16")),
        Knob(name="batch_size", values=(8, 16, 32, 64)),
        Knob(name="llm_layers", values=(1, 2, 3)),
        Knob(name="use_swt", values=(False, True)),
        Knob(name="swt_level", values=(1, 2, 3), when={"use_swt": (True,)}),
        Knob(name="learning_rate", low=1e-5, high=1e-2, log=True),
        Knob(name="d_ff", low=8, high=64, is_whole=True),
    ),
    baseline={
        "precision": "fp32",
        "batch_size": 32,
        "llm_layers": 3,
        "use_swt": False,
        "swt_level": 3,
        "learning_rate": 1e-4,
        "d_ff": 32,
    },
)


def test_numbers_keep_their_order():
    mapped = parameters(SPACE)
    assert mapped["batch_size"].name == "batch_size_position"
    assert mapped["batch_size"].encode(64) == 3
    assert mapped["batch_size"].decode(0) == 8
    assert mapped["llm_layers"].name == "llm_layers"
    assert mapped["llm_layers"].decode(2) == 2
    assert isinstance(mapped["precision"].distribution, optuna.distributions.CategoricalDistribution)
    assert mapped["learning_rate"].distribution.log


def test_settings_survive_the_way_into_the_study_and_back():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    mapped = parameters(SPACE)
    for _ in range(20):
        settings = suggest(study.ask(), SPACE, mapped)
        study.enqueue_trial(encode(settings, SPACE, mapped))
        again = study.ask()
        while again.number % 2 == 0:
            again = study.ask()
        assert suggest(again, SPACE, mapped) == settings


def test_a_knob_that_does_not_count_is_not_asked_for():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    mapped = parameters(SPACE)
    study.enqueue_trial(encode({**SPACE.baseline, "use_swt": False}, SPACE, mapped))
    trial = study.ask()
    assert suggest(trial, SPACE, mapped)["swt_level"] == 3
    assert "swt_level" not in trial.params


@pytest.mark.parametrize("name", [knob.name for knob in SPACE.knobs])
def test_a_random_value_is_one_of_the_knob(name):
    parameter = parameters(SPACE)[name]
    generator = random.Random(3)
    assert all(parameter.knob.holds(parameter.draw(generator)) for _ in range(50))
