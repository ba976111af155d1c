"""The knobs of a space as Optuna parameters, there and back."""

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from spaces import Knob, Space
from spaces.knobs import Value


@dataclass(frozen=True, slots=True)
class Parameter:
    """One knob as Optuna sees it.

    Numbers in a list keep their order: evenly spaced whole numbers are searched as they are, others by
    their position in the list, so that 8, 16, 32 are neighbours.
    """

    knob: Knob
    """The knob."""
    name: str
    """Name of the parameter in the study."""
    distribution: BaseDistribution
    """What Optuna draws from."""

    def encode(self, value: Value) -> Any:
        """The parameter's value for a knob's value."""
        return self.knob.values.index(value) if self._is_position else value

    def decode(self, value: Any) -> Value:
        """The knob's value for a parameter's value."""
        return self.knob.values[value] if self._is_position else value

    def draw(self, generator: random.Random) -> Value:
        """A value of the knob at random."""
        if self.knob.ends is None:
            return generator.choice(self.knob.values)
        low, high = self.knob.ends
        if self.knob.log:
            value = math.exp(generator.uniform(math.log(low), math.log(high)))
        else:
            value = generator.uniform(low, high)
        return min(max(round(value), math.ceil(low)), math.floor(high)) if self.knob.is_whole else value

    @property
    def _is_position(self) -> bool:
        return self.name != self.knob.name


def parameters(space: Space) -> dict[str, Parameter]:
    """The parameter of every knob, by the knob's name."""
    return {knob.name: _parameter(knob) for knob in space.knobs}


def suggest(trial: optuna.Trial, space: Space, mapped: Mapping[str, Parameter]) -> dict[str, Value]:
    """Full settings from a trial: only knobs that count are asked for.

    Args:
        trial: An open Optuna trial.
        space: A resolved space.
        mapped: Its parameters.
    """
    chosen: dict[str, Value] = {}
    for knob in space.knobs:
        if knob.is_active(space.settings(chosen)):
            parameter = mapped[knob.name]
            chosen[knob.name] = parameter.decode(_ask(trial, parameter.name, parameter.distribution))
    return space.settings(chosen)


def encode(settings: Mapping[str, Value], space: Space, mapped: Mapping[str, Parameter]) -> dict[str, Any]:
    """Optuna parameters of settings: the inverse of `suggest`."""
    return {mapped[name].name: mapped[name].encode(value) for name, value in space.active(settings).items()}


def _ask(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
    assert isinstance(distribution, CategoricalDistribution)
    return trial.suggest_categorical(name, distribution.choices)


def _parameter(knob: Knob) -> Parameter:
    if knob.ends:
        low, high = knob.ends
        if knob.is_whole:
            return Parameter(knob, knob.name, IntDistribution(math.ceil(low), math.floor(high), log=knob.log))
        return Parameter(knob, knob.name, FloatDistribution(low, high, log=knob.log))
    if not knob.is_ordinal:
        return Parameter(knob, knob.name, CategoricalDistribution(knob.values))
    step = _even_step(knob.values)
    if step is not None:
        return Parameter(knob, knob.name, IntDistribution(int(knob.values[0]), int(knob.values[-1]), step=step))
    return Parameter(knob, f"{knob.name}_position", IntDistribution(0, len(knob.values) - 1))


def _even_step(values: Sequence[Value]) -> int | None:
    """Distance of evenly spaced, rising whole numbers; None for any other list."""
    if len(values) < 2 or not all(isinstance(value, int) for value in values):
        return None
    steps = {int(after) - int(before) for before, after in itertools.pairwise(values)}
    return steps.pop() if len(steps) == 1 and min(steps, default=0) > 0 else None
