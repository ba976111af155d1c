"""Proposals on two levels: what decides the error, and how the same numbers are computed.

A sampler that draws every knob freely almost never meets a set of numbers twice, so every trial would pay for an error
of its own. Half of the proposals, or more, take a set whose error is known or being trained and search the way to
compute it; the others search numbers, computed the fastest way that is known.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spaces import Space
from spaces.knobs import Value
from timellm.contract.columns import knob_column
from timellm.contract.numbers import numbers_of

REUSE = "ways"
SEARCH = "numbers"


class Levels:
    """Decides what a proposal searches.

    Args:
        space: The resolved space.
        defaults: Settings of every run, from `RunConfig.to_dict`: they show which knobs decide numbers.
        seed: Of the draws among sets of numbers.
    """

    def __init__(self, space: Space, defaults: Mapping[str, Any], seed: int = 0) -> None:
        named = set(numbers_of({**defaults, **space.settings(space.baseline)}))
        self.numbers = tuple(knob.name for knob in space.knobs if knob.name in named)
        self.ways = tuple(knob.name for knob in space.knobs if knob.name not in named)
        self._random = random.Random(seed)
        self._made = {REUSE: 0, SEARCH: 0}

    def next(self, rows: Sequence[Mapping[str, Any]], share: float = 0.5) -> Iterable[tuple[str, dict[str, Value]]]:
        """Restrictions of the next proposal, best first: the level, and the knobs that are fixed.

        If a set of numbers has no untried way left, or if no set of numbers is left, the next restriction applies.

        Args:
            rows: Rows with an error and a time.
            share: Share of the proposals that search numbers, at most half.
        """
        sets = self._sets(rows)
        reuse = [(REUSE, fixed) for fixed in sets] if self.ways else []
        search = [(SEARCH, self._fastest(rows))] if self.numbers else []
        if self._made[SEARCH] >= share * (1 + sum(self._made.values())):
            return [*reuse, *search, ("any", {})]
        return [*search, *reuse, ("any", {})]

    def made(self, level: str) -> None:
        """Count a proposal that was made."""
        if level in self._made:
            self._made[level] += 1

    def _sets(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Value]]:
        """Sets of numbers that have an error, good ones early: each next one the better of two drawn at random."""
        scored: dict[tuple[Any, ...], tuple[float, dict[str, Value]]] = {}
        for row in rows:
            fixed = {name: row[knob_column(name)] for name in self.numbers}
            score = row.get("joint_score")
            known = scored.get(tuple(fixed.values()))
            value = float(score) if score is not None else 0.0
            if known is None or value < known[0]:
                scored[tuple(fixed.values())] = (value, fixed)
        left, order = list(scored.values()), []
        while left:
            pair = self._random.sample(left, min(2, len(left)))
            best = min(pair, key=lambda one: one[0])
            left.remove(best)
            order.append(best[1])
        return order

    def _fastest(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Value]:
        """How the fastest row computes, relative to what its numbers let expect: its own way."""
        timed = [row for row in rows if row.get("seconds_per_epoch")]
        if not timed:
            return {}
        best = min(timed, key=lambda row: row["seconds_per_epoch"])
        return {name: best[knob_column(name)] for name in self.ways}
