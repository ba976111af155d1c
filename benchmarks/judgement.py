"""How often the three words about a difference of error are right."""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.document import command_line, today
from benchmarks.record import Notes, Section, Text, read_sections, table
from benchmarks.runner import FOLDER, Benchmark
from results.analysis.judgement import TOLERANCE, Repeats, Word, difference, paired_spread, pooled_spread
from timellm.contract.flags import StrictParser

FIRST_SEED = 2021
LIMIT = 0.05
"""Most that "no worse" may be wrong."""
PLANTED = (0.0, TOLERANCE, 0.10)
"""True differences of every set of numbers from the baseline, as shares."""

INTRODUCTION = """# Judgement

A pick shows how much its validation error differs from the baseline's, with an interval and one of three words: *no
worse than 2 %*, *worse*, *not shown* (`results.analysis.judgement`). How often are they right? Tables are made up whose
truth is known: every set of numbers has the same planted difference from the baseline, and noise as it was measured
between seeds ([quality](quality.md)): a part that a seed brings to all sets, and a part of each training's own. As in a
search, the sets have one seed each, the best of them by that seed become the candidates, and these get the baseline's
seeds.

*No worse* is wrong if the planted difference is above 2 %, so its share at 2 % is how often it is wrong at worst. Goal:
at most 5 %. *Worse* is wrong at 0 %, where the same goal holds. *Not shown* is never wrong, and helps nobody. The last
column is what a table without intervals would say: that the candidate's first error is at most 2 % above the
baseline's."""


@dataclass(frozen=True, slots=True)
class Case:
    """How a search spends its trainings."""

    name: str
    sets: int
    """Sets of numbers beside the baseline's, one seed each."""
    candidates: int
    """The best of them, which get every seed."""
    seeds: int
    """Seeds of the baseline and the candidates."""


CASES = (
    Case("3 seeds, 2 candidates of 12 sets", 12, 2, 3),
    Case("2 seeds, 2 candidates of 4 sets", 4, 2, 2),
    Case("3 seeds, 6 candidates of 12 sets", 12, 6, 3),
    Case("5 seeds, 2 candidates of 12 sets", 12, 2, 5),
)


@dataclass(frozen=True, slots=True)
class Noise:
    """Standard deviations of log error."""

    shared: float
    """Of what a seed brings to every set of numbers."""
    own: float
    """Of what each training has of its own."""
    tails: float = np.inf
    """Degrees of freedom of Student's distribution it is drawn from, scaled to the same deviation."""

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...], deviation: float) -> np.ndarray:
        """Noise of a deviation [*shape]."""
        if np.isinf(self.tails):
            return generator.normal(0.0, deviation, shape)
        return generator.standard_t(self.tails, shape) * deviation * np.sqrt(1 - 2 / self.tails)


class Judgement(Benchmark):
    """Judges made-up tables whose truth is known."""

    name = "judgement"
    title = "Says how often the three words about a difference of error are right, on made-up tables."
    introduction = INTRODUCTION
    replaces_all = True

    _wrong: float

    def parser(self) -> argparse.ArgumentParser:
        """Its flags."""
        parser = StrictParser(prog=f"benchmarks {self.name}", description=self.title)
        parser.add_argument(
            "--tables", type=int, default=4000, help="tables of each case and planted difference (4000)"
        )
        parser.add_argument("--seed", type=int, default=0, help="seed of the tables (0)")
        return parser

    def measure(self, arguments: argparse.Namespace) -> list[Section]:
        """The one section, of no device."""
        noise = measured_noise(recorded_repeats(read_sections(FOLDER / "quality.md")))
        kinds = [*((case, noise) for case in CASES), (CASES[0], Noise(noise.shared, noise.own, tails=4.0))]
        rows = []
        for case, drawn in kinds:
            for planted in PLANTED:
                generator = np.random.default_rng(arguments.seed)
                words, first = judged(case, planted, drawn, arguments.tables, generator)
                name = case.name if drawn is noise else f"{case.name}, heavy tails"
                rows.append((name, planted, words, first))
        self._wrong = max(words[Word.NO_WORSE] for _, planted, words, _ in rows if planted >= TOLERANCE)
        false_alarm = max(words[Word.WORSE] for _, planted, words, _ in rows if planted == 0)
        verdict = (
            f"*No worse* is wrong in at most {_percent(self._wrong)} (goal: {_percent(LIMIT)}: "
            f"{'met' if self._wrong <= LIMIT else 'missed'}); *worse* is wrong in at most {_percent(false_alarm)}."
        )
        notes = Notes(
            (
                f"Noise as measured: {100 * noise.shared:.2f} % shared by the trainings of a seed, "
                f"{100 * noise.own:.2f} % of each training's own (standard deviations of log error)",
                f"Tables: {arguments.tables} of each case and planted difference",
                f"Command: `{command_line()}`",
                f"Date: {today()}",
            )
        )
        headings = ["case", "planted", *map(str, Word), "first error at most 2 % above"]
        cells = [
            [case, f"{100 * planted:.0f} %", *(_percent(words[word]) for word in Word), _percent(first)]
            for case, planted, words, first in rows
        ]
        return [Section("Made-up tables, measured noise", (notes, table(headings, cells), Text(verdict)))]

    def status(self) -> int:
        """1 where "no worse" is wrong too often."""
        return 0 if self._wrong <= LIMIT else 1


def recorded_repeats(sections: Sequence[Section]) -> list[dict[str, dict[int, float]]]:
    """Errors by set and seed of every section of quality.md."""
    found = []
    for section in sections:
        repeats: dict[str, dict[int, float]] = {}
        for run, error, *_ in section.table("run").rows:
            name, seed = run.split(", seed ")
            repeats.setdefault(name, {})[int(seed)] = float(error)
        found.append(repeats)
    return found


def measured_noise(sections: list[dict[str, dict[int, float]]]) -> Noise:
    """Both parts of the noise: the whole spread pooled over sections, and what pairs of equal seeds leave of it."""
    together: Repeats = {
        f"{index} {name}": errors for index, part in enumerate(sections) for name, errors in part.items()
    }
    whole = pooled_spread(together)
    paired = [spread for part in sections if (spread := paired_spread(part)) is not None]
    if whole is None or not paired:
        raise SystemExit("quality.md must hold two sets of numbers with the same seeds.")
    degrees = sum(spread.degrees for spread in paired)
    own = np.sqrt(sum(spread.degrees * spread.deviation**2 for spread in paired) / degrees)
    return Noise(float(np.sqrt(max(whole.deviation**2 - own**2, 0.0))), float(own))


def judged(
    case: Case, planted: float, noise: Noise, tables: int, generator: np.random.Generator
) -> tuple[dict[str, float], float]:
    """Judge every candidate of some tables.

    Returns:
        Share of each word, and share of candidates whose first error is at most 2 % above the baseline's.
    """
    counts: Counter[str] = Counter()
    first = 0
    for repeats in made_tables(case, planted, noise, tables, generator):
        for name in repeats:
            if name == "baseline" or len(repeats[name]) < case.seeds:
                continue
            found = difference(repeats, name, "baseline", chosen_by=FIRST_SEED)
            assert found is not None
            counts[found.word] += 1
            first += repeats[name][FIRST_SEED] <= (1 + TOLERANCE) * repeats["baseline"][FIRST_SEED]
    total = counts.total()
    return {word: counts[word] / total for word in Word}, first / total


def made_tables(
    case: Case, planted: float, noise: Noise, tables: int, generator: np.random.Generator
) -> Iterator[dict[str, dict[int, float]]]:
    """Errors by set and seed, the candidates chosen by their first seed."""
    seeds = range(FIRST_SEED, FIRST_SEED + case.seeds)
    truth = np.log1p(np.array([0.0, *[planted] * case.sets]))
    for _ in range(tables):
        own = noise.draw(generator, (case.sets + 1, case.seeds), noise.own)
        shared = noise.draw(generator, (1, case.seeds), noise.shared)
        errors = 0.8 * np.exp(truth[:, None] + own + shared)  # [sets and baseline, seeds]
        chosen = {0, *(1 + np.argsort(errors[1:, 0])[: case.candidates])}
        yield {
            f"set {index}" if index else "baseline": dict(
                zip(seeds if index in chosen else seeds[:1], map(float, row), strict=False)
            )
            for index, row in enumerate(errors)
        }


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
