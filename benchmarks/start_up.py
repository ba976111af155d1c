"""From the start of a training process to its first step. `start_up.py --help`."""

import sys
import time

BEGAN_SCRIPT = time.time()

import json  # noqa: E402
import tempfile  # noqa: E402
import threading  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

sys.path[0] = str(Path(__file__).resolve().parents[1])

PROG = "start_up.py"
NAME = "start_up"
GPU_COMMAND = "python benchmarks/start_up.py --llm_model gpt2 --llm_weights random"
INTRODUCTION = """# Start-up

From the start of a training process to the end of its first optimizer step, caches warm (converted backbone, prompt
tokens, checksums, the system's file cache): what every trial of a search pays before it learns. Medians of fresh
processes, with their 95 % interval; parts follow each other and the last row is their sum."""

PARTS = (
    ("load_data", "data: read, split, scale"),
    ("resolve_backbone", "backbone: find and check"),
    ("load_tokenizer", "tokenizer"),
    ("tokenized_prompts", "prompt tokens: open"),
    ("load_backbone", "backbone: load"),
    ("TimeLLM", "network: build and initialise"),
)
"""Names in `timellm.run.preparation` that are timed."""


def main() -> int:
    """Start training processes and write the section of this device and model."""
    from benchmarks.document import conditions, device_heading, publish, table
    from benchmarks.harness import (
        benchmark_parser,
        call_apart,
        median_of,
        run_settings,
        show_progress,
        use_worker_environment,
    )
    from timellm.machine.environment import choose_device

    parser = benchmark_parser(PROG, "Times the start of a training process.", repeats=7)
    parser.add_argument("--windows", type=int, default=4096, help="training windows of the run (4096)")
    parser.add_argument("--once", action="store_true", help="be the training process and print its times")
    arguments = parser.parse_args()
    use_worker_environment(arguments.threads)
    own = {"prompt_prefix": "reuse", "train_samples": arguments.windows, "val_samples": 64}
    config = run_settings(arguments, **own)
    readings: list[dict[str, Any]] = []
    for number in range(arguments.repeats + 1):  # the first warms the caches
        reading = call_apart("--once")
        readings += [reading] if number else []
        show_progress(f"start {number} of {arguments.repeats}: {sum(reading['seconds'].values()):.2f} s")
    device, label = choose_device(config), readings[0]["backbone"]
    rows = [
        (part, f"{median_of([reading['seconds'][part] for reading in readings]):.2f}")
        for part in readings[0]["seconds"]
    ]
    rows.append(("process start to first step", f"{median_of([sum(r['seconds'].values()) for r in readings]):.2f}"))
    note = f"Run: {label}, {config.llm_layers} layers, {config.data}, {arguments.windows} windows, {config.precision}"
    body = "\n\n".join([conditions(device, note), table(("part", "seconds"), rows)])
    publish(NAME, arguments.output, INTRODUCTION, device_heading(device, label), body, GPU_COMMAND)
    return 0


def once() -> None:
    """Be a training process until its first step, and print the times of its parts."""
    import psutil

    began = psutil.Process().create_time()
    seconds = {"interpreter": BEGAN_SCRIPT - began}
    mark = time.time()
    import torch

    seconds["import torch"] = time.time() - mark
    mark = time.time()
    import timellm.run.preparation as preparation
    import timellm.run.training as run
    from benchmarks.harness import benchmark_parser, run_settings

    seconds["import the training run (transformers, accelerate)"] = time.time() - mark
    for name, part in PARTS:
        setattr(preparation, name, _timed(getattr(preparation, name), part, seconds))
    run.build_engine = _timed(run.build_engine, "optimizer", seconds)
    parser = benchmark_parser(PROG, "", repeats=1)
    parser.add_argument("--windows", type=int, default=4096)
    parser.add_argument("--once", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    own = {"prompt_prefix": "reuse", "train_samples": arguments.windows, "val_samples": 64}
    config = run_settings(arguments, **own)
    times: dict[str, float] = {}
    stop = threading.Event()

    def note(event: dict[str, Any]) -> None:
        times.setdefault(event["event"], time.time())
        if event["event"] == "progress":
            stop.set()

    with tempfile.TemporaryDirectory() as folder:
        options = run.RunOptions(folder=Path(folder), on_event=note, should_stop=stop)
        result = run.TrainingRun(config, options).run()
    rest = times["training"] - began - sum(seconds.values())
    seconds["rest of the preparation"] = rest
    seconds["first step"] = times["progress"] - times["training"]
    print(json.dumps({"seconds": seconds, "backbone": result.backbone}))


def _timed(function: Callable[..., Any], part: str, seconds: dict[str, float]) -> Callable[..., Any]:
    """The function, adding its duration to its part's."""

    def wrapped(*arguments: Any, **options: Any) -> Any:
        started = time.time()
        try:
            return function(*arguments, **options)
        finally:
            seconds[part] = seconds.get(part, 0.0) + time.time() - started

    return wrapped


if __name__ == "__main__":
    if "--once" in sys.argv:
        once()
    else:
        from timellm.arguments import run_command

        run_command(main, PROG)
