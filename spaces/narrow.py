"""Fixes or narrows the knobs of a space, as `--set knob=value` asks."""

import dataclasses
from collections.abc import Mapping, Sequence

from spaces.knobs import GUIDE_BASELINE, KNOWN, Value, is_measured
from spaces.schema import unknown_knob
from spaces.space import Knob, Space
from timellm.contract.errors import InputError


def parse_settings(texts: Sequence[str]) -> dict[str, tuple[Value, ...]]:
    """Values by knob, from texts such as `batch_size=32,64`.

    Args:
        texts: What followed each `--set`.

    Raises:
        InputError: With every problem at once: no equals sign, an unknown knob, a value it cannot have, a knob twice.
    """
    settings: dict[str, tuple[Value, ...]] = {}
    problems = []
    for text in texts:
        name, equals, rest = text.partition("=")
        name = name.strip()
        if not equals or not rest.strip():
            problems.append(f"--set must look like knob=value or knob=a,b, got {text!r}.")
        elif name not in KNOWN:
            problems.append(f"--set {text}: {name} {unknown_knob(name)}.")
        elif name in settings:
            problems.append(f"--set must name a knob once, got {name} twice. Write --set {name}=a,b.")
        else:
            settings[name], found = _parsed(name, rest)
            problems += [f"--set {text}: {name} {problem}." for problem in found]
    if problems:
        raise InputError(problems)
    return settings


def _parsed(name: str, rest: str) -> tuple[tuple[Value, ...], list[str]]:
    """The values of one setting, and what is wrong with them."""
    known = KNOWN[name]
    if known.kind == "text" and not known.searched:
        return (rest,), []
    values = tuple(dict.fromkeys(known.parse(part.strip()) for part in rest.split(",")))
    found = [problem for value in values if (problem := known.problem(value))]
    if len(values) > 1 and not known.searched:
        found.append(f"can be fixed to one value but not searched, got {rest}")
    return values, found


def narrow(space: Space, settings: Mapping[str, tuple[Value, ...]]) -> Space:
    """The space with some knobs fixed to one value or narrowed to a few.

    A setting holds for every trial, the baseline and the plans included; `resolve` moves their values to the
    nearest ones that are left.

    Args:
        space: A loaded space.
        settings: Values by knob, from `parse_settings`. A knob that the space does not search is fixed, or
            joins the search if it is given several values.
    """
    fixed, knobs = dict(space.fixed), list(space.knobs)
    baseline, plans = dict(space.baseline), {name: dict(plan) for name, plan in space.plans.items()}
    for name, values in settings.items():
        place = next((i for i, knob in enumerate(knobs) if knob.name == name), None)
        if place is not None:
            knobs[place] = _narrowed(knobs[place], values)
        elif len(values) == 1:
            fixed[name] = values[0]
        else:
            start = fixed.pop(name, GUIDE_BASELINE[name])
            knobs.insert(0, Knob(name=name, values=values))
            baseline[name] = start
            for plan in plans.values():
                plan[name] = start
    return dataclasses.replace(space, fixed=fixed, knobs=tuple(knobs), baseline=baseline, plans=plans)


def _narrowed(knob: Knob, values: tuple[Value, ...]) -> Knob:
    """The knob with these values; values that the user named are tried if possible, although they may not pay."""
    needs = {value: kept for value, listed in knob.needs.items() if (kept := _hard(listed))}
    return dataclasses.replace(knob, values=values, low=None, high=None, log=False, is_whole=False, needs=needs)


def _hard(features: tuple[str, ...]) -> tuple[str, ...]:
    """The features without which a value cannot be had at all."""
    return tuple(feature for feature in features if not is_measured(feature))
