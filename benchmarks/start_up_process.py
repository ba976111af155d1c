"""A training process that prints what its start took: `python -m benchmarks start_up` starts several."""

import json
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BEGAN = time.time()
"""When the interpreter was there, with what this module needs of the standard library."""

PARTS = (
    ("load_data", "data: read, split, scale"),
    ("resolve_backbone", "backbone: find and check"),
    ("load_tokenizer", "tokenizer"),
    ("tokenized_prompts", "prompt tokens: open"),
    ("load_backbone", "backbone: load"),
    ("TimeLLM", "network: build and initialise"),
)
"""Names in `timellm.run.preparation` that are timed."""


def main() -> None:
    """Be a training process until its first step, and print the times of its parts."""
    import psutil

    began = psutil.Process().create_time()
    seconds = {"interpreter": BEGAN - began}
    mark = time.time()
    import torch

    seconds["import torch"] = time.time() - mark
    mark = time.time()
    import timellm.run.preparation as preparation
    import timellm.run.training as run
    from benchmarks.harness import run_settings
    from benchmarks.start_up import StartUp
    from timellm.contract.job import EventKind

    seconds["import the training run (transformers, accelerate)"] = time.time() - mark
    for name, part in PARTS:
        setattr(preparation, name, _timed(getattr(preparation, name), part, seconds))
    run.build_engine = _timed(run.build_engine, "optimizer", seconds)
    arguments = StartUp().parser().parse_args()
    torch.set_num_threads(arguments.threads)
    config = run_settings(arguments, **StartUp.own_settings(arguments))
    times: dict[str, float] = {}
    stop = threading.Event()

    def note(event: dict[str, Any]) -> None:
        times.setdefault(event["event"], time.time())
        if event["event"] == EventKind.PROGRESS:
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
    main()
