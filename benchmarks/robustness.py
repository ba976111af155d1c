"""What commands do with inputs that nobody would write on purpose: never a traceback, never a hang."""

import argparse
from collections import Counter
from collections.abc import Mapping

import torch

from benchmarks import fuzz_flags, fuzz_models, fuzz_runs, fuzz_searches, fuzz_tables, kills, readers
from benchmarks.document import conditions
from benchmarks.fuzzing import LIMIT_SECONDS, Maker, Outcome, fuzz
from benchmarks.harness import show_progress
from benchmarks.record import Section, Table, table
from benchmarks.runner import Benchmark
from timellm.contract.flags import StrictParser

INPUTS = 2000
HEADING = "Odd inputs"
INTRODUCTION = f"""# Robustness

Inputs made from a seed, of every kind in turn, each given to its command in one process, as a user would: up to the
point where a training would begin. Wrong input must end with status 2 and a line that says why. A traceback, more than
{LIMIT_SECONDS} seconds of computing or of waiting, and any status but 0, 1, 2 and 130 are faults; there must be none.
`--kills` makes the sections after the first, with whole searches."""

KINDS: Mapping[str, Maker] = {
    **fuzz_tables.KINDS,
    **fuzz_models.KINDS,
    **fuzz_runs.KINDS,
    **fuzz_searches.KINDS,
    **fuzz_flags.KINDS,
}
"""Every kind of input."""


class Robustness(Benchmark):
    """Feeds odd inputs to the commands and counts what goes wrong."""

    name = "robustness"
    title = "Feeds odd inputs to the commands and counts what goes wrong."
    introduction = INTRODUCTION

    _faults: list[Outcome]

    def parser(self) -> argparse.ArgumentParser:
        """Its flags."""
        parser = StrictParser(prog=f"benchmarks {self.name}", description=self.title)
        parser.add_argument("--inputs", type=int, default=INPUTS, help=f"how many ({INPUTS})")
        parser.add_argument("--seed", type=int, default=0, help="of what is drawn (0)")
        parser.add_argument(
            "--kills",
            action="store_true",
            help="kill processes of a search instead, count what is lost, and let optuna-dashboard read one",
        )
        parser.add_argument(
            "--kinds", nargs="+", choices=tuple(KINDS), default=list(KINDS), help="of these kinds (all)"
        )
        return parser

    def measure(self, arguments: argparse.Namespace) -> list[Section]:
        """Counts by kind and by end, and the slowest input of each kind."""
        outcomes: list[Outcome] = []
        self._faults = []
        if arguments.kills:
            return [
                Section(kills.HEADING, (conditions(torch.device("cpu"), kills.NOTE), kills.kill_table())),
                Section(readers.HEADING, (conditions(torch.device("cpu"), readers.NOTE), readers.reader_table())),
            ]
        for outcome in fuzz({kind: KINDS[kind] for kind in arguments.kinds}, arguments.inputs, arguments.seed):
            outcomes.append(outcome)
            if outcome.problem is not None:
                print(
                    f"{outcome.kind} {outcome.number}: {outcome.problem}\n    {' '.join(outcome.words)!r}", flush=True
                )
            if len(outcomes) % 100 == 0:
                show_progress(f"{len(outcomes)} of {arguments.inputs} inputs")
        self._faults = [outcome for outcome in outcomes if outcome.problem is not None]
        notes = conditions(torch.device("cpu"), f"Inputs: {len(outcomes)}, seed {arguments.seed}")
        return [Section(HEADING, (notes, counts_table(outcomes)))]

    def status(self) -> int:
        """1 where anything went wrong."""
        return 1 if self._faults else 0


def counts_table(outcomes: list[Outcome]) -> Table:
    """Inputs of each kind, how they ended, and the seconds of the slowest."""
    rows = []
    for kind in dict.fromkeys(outcome.kind for outcome in outcomes):
        these = [outcome for outcome in outcomes if outcome.kind == kind]
        ends = Counter(outcome.status for outcome in these)
        faults = Counter(outcome.problem.split(":")[0] for outcome in these if outcome.problem is not None)
        told = ", ".join(f"{count} {problem}" for problem, count in faults.items()) or "0"
        slowest = max(outcome.seconds for outcome in these)
        rows.append((kind, str(len(these)), *(str(ends[code]) for code in (0, 1, 2)), told, f"{slowest:.1f}"))
    return table(("kind", "inputs", "accepted", "status 1", "refused", "faults", "slowest, s of computing"), rows)
