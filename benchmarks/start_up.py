"""From the start of a training process to its first step."""

import argparse
import json
import subprocess
import sys
from typing import Any

from benchmarks.document import conditions, device_heading
from benchmarks.harness import benchmark_parser, median_of, run_settings, show_progress, use_worker_environment
from benchmarks.record import Section, table
from benchmarks.runner import Benchmark
from timellm.machine.environment import choose_device

INTRODUCTION = """# Start-up

From the start of a training process to the end of its first optimizer step, caches warm (converted backbone, prompt
tokens, checksums, the system's file cache): what every trial of a search pays before it learns. Medians of fresh
processes, with their 95 % interval; parts follow each other and the last row is their sum."""


class StartUp(Benchmark):
    """Times the start of a training process."""

    name = "start_up"
    title = "Times the start of a training process."
    introduction = INTRODUCTION
    gpu_flags = "--llm_model gpt2 --llm_weights random"

    def parser(self) -> argparse.ArgumentParser:
        """Its flags."""
        parser = benchmark_parser(self.name, self.title, repeats=7)
        parser.add_argument("--windows", type=int, default=4096, help="training windows of the run (4096)")
        return parser

    @staticmethod
    def own_settings(arguments: argparse.Namespace) -> dict[str, Any]:
        """Settings of the run that is started, where no flag says another."""
        return {"prompt_prefix": "reuse", "train_samples": arguments.windows, "val_samples": 64}

    def measure(self, arguments: argparse.Namespace) -> list[Section]:
        """The section of this device and model."""
        use_worker_environment(arguments.threads)
        config = run_settings(arguments, **self.own_settings(arguments))
        readings: list[dict[str, Any]] = []
        for number in range(arguments.repeats + 1):  # the first warms the caches
            reading = _start()
            readings += [reading] if number else []
            show_progress(f"start {number} of {arguments.repeats}: {sum(reading['seconds'].values()):.2f} s")
        device, label = choose_device(config), readings[0]["backbone"]
        rows = [
            (part, f"{median_of([reading['seconds'][part] for reading in readings]):.2f}")
            for part in readings[0]["seconds"]
        ]
        rows.append(("process start to first step", f"{median_of([sum(r['seconds'].values()) for r in readings]):.2f}"))
        note = (
            f"Run: {label}, {config.llm_layers} layers, {config.data}, {arguments.windows} windows, {config.precision}"
        )
        return [Section(device_heading(device, label), (conditions(device, note), table(("part", "seconds"), rows)))]


def _start() -> dict[str, Any]:
    """What a fresh training process with the flags of this one says of its start."""
    flags = [word for word in sys.argv[2:] if not word.startswith("--output")]
    command = [sys.executable, "-m", "benchmarks.start_up_process", *flags]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])
