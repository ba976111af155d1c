"""The Optuna samplers that a search can use: each an entry of `SAMPLERS`."""

import warnings
from collections.abc import Callable, Mapping

import optuna

from spaces import Space

MakeSampler = Callable[[Space, int], optuna.samplers.BaseSampler]
"""Makes a sampler for a resolved space, with the seed of its random numbers (below 2**32)."""

_FIRST_AT_RANDOM = 6
"""Trials before a model is trusted; the baseline and the plans count."""
_POPULATION = 12
"""Generation of NSGA-II: small, because a search has tens of trials, not thousands."""


def _tpe(space: Space, seed: int) -> optuna.samplers.BaseSampler:
    """Tree-structured Parzen estimators; knobs that count only under a condition are modelled in groups."""
    is_conditional = any(knob.when for knob in space.knobs)
    return optuna.samplers.TPESampler(
        seed=seed, multivariate=True, group=is_conditional, n_startup_trials=_FIRST_AT_RANDOM
    )


def _nsga2(space: Space, seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=_POPULATION)


def _gp(space: Space, seed: int) -> optuna.samplers.BaseSampler:
    """A Gaussian process; each knob that counts only under a condition is left to a TPE of its own."""
    return optuna.samplers.GPSampler(
        seed=seed,
        n_startup_trials=_FIRST_AT_RANDOM,
        independent_sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=_FIRST_AT_RANDOM),
        warn_independent_sampling=False,
    )


def _random(space: Space, seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


SAMPLERS: Mapping[str, MakeSampler] = {
    "tpe": _tpe,
    "nsga2": _nsga2,
    "gp": _gp,
    "random": _random,
}
"""Every sampler that `--sampler` names."""


def make_sampler(name: str, space: Space, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler of a name.

    Args:
        name: One of SAMPLERS.
        space: A resolved space.
        seed: Seed of its random numbers; of larger ones the last 32 bits count.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return SAMPLERS[name](space, seed % 2**32)
