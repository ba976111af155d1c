"""A GPU in ten minutes: is it right there, does every lever run, what bounds a step, how long is an epoch."""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from benchmarks.document import conditions, device_heading
from benchmarks.gpu_stages import STAGES
from benchmarks.harness import benchmark_parser, run_settings, show_progress
from benchmarks.record import Section, Table, table
from benchmarks.runner import Benchmark
from benchmarks.series import made_settings
from timellm.contract.errors import last_line
from timellm.machine.environment import choose_device

INTRODUCTION = """# On a GPU

One command, at most ten minutes: each stage is a process of its own with a time limit of its own, and what it found
before it ended stands here. `golden` compares outputs, losses and gradients with those of the published model (1e-5,
1e-5 and 1e-4 in fp32), `exactness` one pass through prompt and patches with two, and a CUDA graph of a step with the
step itself, `levers` trains with every lever on a few windows, `launches` counts a step's kernels and waits,
`step_time` times steps of several variants, and `epoch_time` trains whole epochs of an ETTm1-sized data set."""


@dataclass(frozen=True)
class Finding:
    """What a stage found.

    Attributes:
        stage: Its name.
        rows: What it measured: name, figure, unit or remark.
        seconds: How long it took.
        problem: Why it ended early; None if it did not.
    """

    stage: str
    rows: tuple[tuple[str, str, str], ...]
    seconds: float
    problem: str | None


class Gpu(Benchmark):
    """Checks and times this project on a GPU."""

    name = "gpu"
    title = "Checks and times this project on a GPU, in ten minutes at most."
    introduction = INTRODUCTION
    gpu_flags = "--device cuda --llm_model gpt2 --llm_weights random"

    def parser(self) -> argparse.ArgumentParser:
        """Its flags."""
        parser = benchmark_parser(self.name, self.title)
        parser.add_argument("--stages", default=",".join(STAGES), help="stages, comma-separated (all)")
        parser.add_argument("--small", action="store_true", help="few windows, to try the command out")
        parser.add_argument("--stage", default=None, help="run one stage in this process, a JSON line for each row")
        return parser

    def measure(self, arguments: argparse.Namespace) -> Sequence[Section]:
        """Run each stage in a process of its own; the last lines of one that fails are its problem."""
        config = run_settings(arguments, **made_settings(vars(arguments)))
        device = choose_device(config)
        if arguments.stage is not None:
            torch.set_num_threads(arguments.threads)
            for row in STAGES[arguments.stage].run(config, device, arguments.small):
                print(json.dumps(row), flush=True)
            return ()
        findings = []
        for name in arguments.stages.split(","):
            show_progress(f"stage {name}")
            findings.append(run_stage(name, [sys.executable, *sys.orig_argv[1:], "--stage", name]))
        heading = device_heading(device, config.llm_model)
        return [Section(heading, (conditions(device), _overview(findings), *map(_table, findings)))]


def run_stage(name: str, command: Sequence[str], clock: Callable[[], float] = time.perf_counter) -> Finding:
    """Run a stage within its limit; what it printed before it ended counts."""
    began = clock()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        output, errors = process.communicate(timeout=STAGES[name].limit_seconds)
        problem = None if process.returncode == 0 else last_line(errors, "no output")
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        problem = f"ended at its limit of {STAGES[name].limit_seconds} s"
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("[")]
    return Finding(name, tuple(tuple(map(str, row)) for row in rows), clock() - began, problem)  # type: ignore[misc]


def _overview(findings: Sequence[Finding]) -> Table:
    rows = [(one.stage, f"{one.seconds:.0f}", len(one.rows), one.problem or "-") for one in findings]
    return table(("stage", "s", "rows", "problem"), rows)


def _table(finding: Finding) -> Table:
    return table((finding.stage, "figure", "what"), finding.rows)
