"""What sharing between trials does for a search: the last section of `search_efficiency.md`."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.medians import median_of, ratio_of_medians
from benchmarks.record import Notes, Section, Table, Text, table
from benchmarks.replay import Replayed
from benchmarks.replay_apart import SHARINGS, ReplayApart, Sharing, Tables

GOAL = 1 / 5
"""Wall clock of a search as it is today, of what random whole trials need."""
WORDS = """A trial of a search as it is today measures its time and its error in two runs: some steps as configured,
and a training on the cheapest path that computes the same numbers. Both were recorded for every configuration, and the
searches are replayed by the project's own loop. An error that is known serves every way to compute its numbers, and a
time all numbers that take as long. Every kind of search finds the same errors and times here, those that were measured
apart; what differs is what its runs cost, and how many are needed. A search of whole trials pays for each one what its
recorded run took. An error training finds no prompts that another has computed, which a search has as well. A search
whose scheduler stops trainings is followed for twice the time that the same sampler needs without it (median)."""

Method = tuple[str, str]
Shared = Mapping[tuple[Sharing, Method], Sequence[Replayed]]
"""Replayed searches, one per seed, by what their trials share, sampler and scheduler."""


def replayed_sharing(
    tables: Tables, sharing: Sharing, method: Method, seed: int, most_seconds: float, wanted: float
) -> Replayed:
    """One search.

    Args:
        tables: What was recorded.
        sharing: What its trials share.
        method: Its sampler and scheduler.
        seed: Of the sampler.
        most_seconds: Simulated wall clock at which it ends.
        wanted: Share of the hypervolume that it is to reach.

    Returns:
        Its trials; their seconds hold every start.
    """
    if sharing.is_apart:
        return ReplayApart(tables, wanted).run(sharing, *method, seed, needed=wanted, most_seconds=most_seconds)
    startup = tables.startup_seconds(sharing)
    return tables.whole_trials(startup).run(*method, seed, most_seconds=most_seconds).with_starts(startup)


def seconds_to(runs: Sequence[Replayed], wanted: float) -> np.ndarray:
    """Wall clock of each search to a share of the hypervolume [seeds]; infinite where it is not reached."""
    return np.array([run.seconds_to(wanted, 0.0) for run in runs])


def section(runs: Shared, tables: Tables, wanted: float) -> Section:
    """What the searches needed.

    Args:
        runs: All of them.
        tables: What was recorded.
        wanted: Share of the hypervolume that a search is to reach.
    """
    parts = (Text(WORDS), _conditions(tables), _table(runs, wanted), Text(verdict(runs, wanted)))
    return Section("Time and error apart", parts)


def verdict(runs: Shared, wanted: float) -> str:
    """What each kind of sharing does, and whether the goal is met."""
    sampler = next(method for sharing, method in runs if method[0] != "random")
    seconds = [float(np.median(seconds_to(runs[sharing, sampler], wanted))) for sharing in SHARINGS]
    base = seconds_to(runs[SHARINGS[0], ("random", "none")], wanted)
    factors = [base_seconds / after for base_seconds, after in itertools.pairwise([float(np.median(base)), *seconds])]
    names = ("the sampler", "cheap starts", "shared errors", "shared times")
    told = ", ".join(f"{name} {factor:.2f}" for name, factor in zip(names, factors, strict=True))
    ratio = ratio_of_medians(seconds_to(runs[SHARINGS[-1], sampler], wanted), base)
    word = "met" if ratio.median <= GOAL else "NOT met"
    return (
        f"A search as it is today needs {ratio:.2f} of the wall clock of random whole trials. Factors of the medians, "
        f"one after the other: {told}. Goal, at most {GOAL:.2f}: {word}."
    )


def _conditions(tables: Tables) -> Notes:
    conditions, lines = tables.conditions, []
    for clock, words in (("time", "A timing"), ("error", "An error training")):
        seconds = sorted(tables.seconds(clock))
        spread = f"{seconds[0]:.1f} to {seconds[-1]:.1f} s, median {np.median(seconds):.1f} s"
        lines.append(f"{words}: {len(seconds)} runs of {spread}")
    starts = f"A start: {conditions.startup_seconds:.1f} s, forked {conditions.forked_startup_seconds or 0:.1f} s"
    return Notes((*lines, starts))


def _table(runs: Shared, wanted: float) -> Table:
    base = seconds_to(runs[SHARINGS[0], ("random", "none")], wanted)
    rows = []
    for (sharing, method), found in runs.items():
        seconds = seconds_to(found, wanted)
        reference = runs[sharing, ("random", "none")]
        as_much = "1.00" if found is reference else f"{ratio_of_medians(seconds, seconds_to(reference, wanted)):.2f}"
        rows.append(
            (
                sharing.words,
                method_words(method),
                f"{median_of(seconds).scaled(1 / 60):.1f}",
                f"{ratio_of_medians(seconds, base):.2f}",
                as_much,
                f"{np.median([run.trials_to(wanted) for run in found]):.0f}",
                f"{np.isfinite(seconds).sum()} of {len(found)}",
            )
        )
    heads = ("trials share", "searcher", "minutes", "of random whole trials", "of random ones that share as much")
    return table((*heads, "trials", "seeds that reach it"), rows)


def method_words(method: Method) -> str:
    """A sampler and a scheduler as a row's name."""
    sampler, scheduler = method
    return sampler if scheduler == "none" else f"{sampler} + {scheduler}"
