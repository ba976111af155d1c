"""Time between the trials of a search, and what the search itself takes of the CPU."""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch

from benchmarks.document import conditions, device_heading
from benchmarks.harness import FOLDER
from benchmarks.overhead_watch import DRIVER, Gap, Observer, gaps_of
from benchmarks.record import Notes, Section, Table, table
from benchmarks.runner import Benchmark
from timellm.contract.errors import InputError, last_line
from timellm.contract.flags import StrictParser
from timellm.machine.cores import usable_cores

RUN = "overhead"
GOAL_SECONDS = 3.0
SECONDS_BETWEEN_LOOKS = 0.05
INTRODUCTION = f"""# Overhead

What a search costs besides its trainings, over a short real search of tiny trials, which are whole runs (`--clocks
together`), so that no error is trained between two. A process beside it looks at the trials' folders every
{1000 * SECONDS_BETWEEN_LOOKS:.0f} ms. A gap is from the moment a trial's `result.json` was written to the event that
comes right before the first step of the next trial. The next trial's own start-up (`startup_seconds`: from the start
of its process to that event) is taken off; what is left is the search's: the row, the study, the report, the
suggestion, Ray's turn. The goal is at most {GOAL_SECONDS:g} s. CPU time is read every second from the search's
process and all its descendants, from the first training's first step to the last trial's end, as shares of one core."""


class Overhead(Benchmark):
    """Measures what a search costs besides its trainings."""

    name = "overhead"
    title = "Measures what a search costs besides its trainings."
    introduction = INTRODUCTION
    gpu_flags = ""

    def parser(self) -> argparse.ArgumentParser:
        """Its flags."""
        parser = StrictParser(prog=f"benchmarks {self.name}", description=self.title)
        add = parser.add_argument
        add("--trials", type=int, default=6, help="trials of the search (6)")
        add("--space", default="smoke", help="its space (smoke)")
        add("--llm_model", default="smollm2-135m", help="its language model (smollm2-135m)")
        add("--fidelity", default=None, help="its fidelity (the space's)")
        return parser

    def measure(self, arguments: argparse.Namespace) -> list[Section]:
        """The section of this device and model."""
        if arguments.trials < 2:
            raise InputError(f"trials must be at least 2, got {arguments.trials}.")
        started = time.time()
        with tempfile.TemporaryDirectory() as folder:
            observer = _search(arguments, Path(folder))
        seconds = time.time() - started
        gaps, shares = gaps_of(observer.trials), observer.cpu_shares()
        if not gaps:
            raise InputError(f"At least two trials must train, got {len(observer.trials)} in all. Use more --trials.")
        model = arguments.llm_model if "/" not in arguments.llm_model else "local model"
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.set_num_threads(usable_cores())
        head = conditions(
            device,
            f"Search: space {arguments.space}, {model}, {len(observer.trials)} trials, {seconds:.0f} s in all",
        )
        parts = (head, _gaps_table(gaps), _cpu_table(shares), _verdict(gaps, shares))
        return [Section(device_heading(device, arguments.space), parts)]


def _search(arguments, folder: Path) -> Observer:  # type: ignore[no-untyped-def]
    """Run the search in a process of its own and observe it to its end.

    Raises:
        InputError: If it does not end well.
    """
    command = [sys.executable, "search/run.py", "--space", arguments.space, "--num_trials", str(arguments.trials)]
    command += ["--llm_model", arguments.llm_model, "--time_budget", "none", "--name", RUN, "--runs_dir", str(folder)]
    command += ["--no-dashboard", "--scheduler", "none", "--clocks", "together"]
    command += ["--fidelity", arguments.fidelity] if arguments.fidelity else []
    with (folder / "search.log").open("w+") as log:
        process = subprocess.Popen(command, cwd=FOLDER.parent, stdout=log, stderr=subprocess.STDOUT)
        observer = Observer(folder / RUN, psutil.Process(process.pid))
        try:
            while process.poll() is None:
                observer.look()
                time.sleep(SECONDS_BETWEEN_LOOKS)
        finally:
            process.terminate()
            process.wait()
        log.seek(0)
        last = last_line(log.read(), "no output")
    if process.returncode:
        raise InputError(f"The search must end with status 0, got {process.returncode}: {last}")
    return observer


def _gaps_table(gaps: list[Gap]) -> Table:
    rows = [(gap.trials, f"{gap.seconds:.2f}", f"{gap.startup_seconds:.2f}", f"{gap.beyond:.2f}") for gap in gaps]
    return table(("trials", "end to first step, s", "own start-up of the next, s", "beyond it, s"), rows)


def _cpu_table(shares: dict[str, float]) -> Table:
    rows = [(part, f"{100 * share:.1f} %") for part, share in shares.items()]
    return table(("CPU time during the trials", "share of one core"), rows)


def _verdict(gaps: list[Gap], shares: dict[str, float]) -> Notes:
    beyond = [gap.beyond for gap in gaps]
    reached = "reached" if max(beyond) <= GOAL_SECONDS else "MISSED"
    lines = [
        f"Beyond a trial's own start-up: median {statistics.median(beyond):.2f} s, largest {max(beyond):.2f} s; "
        f"the goal of {GOAL_SECONDS:g} s is {reached}."
    ]
    if shares:
        lines.append(f"The driver takes {100 * shares[DRIVER]:.1f} % of one core of {usable_cores()}.")
    return Notes(tuple(lines))
