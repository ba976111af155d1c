"""The Optuna samplers that a search can use."""

import warnings

import optuna

from spaces import Space

SAMPLERS = ("tpe", "nsga2", "gp", "random")
_FIRST_AT_RANDOM = 6
"""Trials before a model is trusted; the baseline and the plans count."""
_POPULATION = 12
"""Generation of NSGA-II: small, for a search has tens of trials, not thousands."""


def make_sampler(name: str, space: Space, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler of a name.

    Args:
        name: One of SAMPLERS.
        space: A resolved space. Of knobs that count only under a condition tpe models groups; gp leaves each to a tpe.
        seed: Seed of its random numbers; of larger ones the last 32 bits count.
    """
    seed %= 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "tpe":
            is_conditional = any(knob.when for knob in space.knobs)
            return optuna.samplers.TPESampler(
                seed=seed, multivariate=True, group=is_conditional, n_startup_trials=_FIRST_AT_RANDOM
            )
        if name == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=_POPULATION)
        if name == "gp":
            return optuna.samplers.GPSampler(
                seed=seed,
                n_startup_trials=_FIRST_AT_RANDOM,
                independent_sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=_FIRST_AT_RANDOM),
                warn_independent_sampling=False,
            )
        return optuna.samplers.RandomSampler(seed=seed)
