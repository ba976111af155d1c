"""A training process: `python -m timellm.worker JOB.json` (docs/design.md, "The worker")."""

import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from timellm.contract.columns import State
from timellm.contract.errors import ExitStatus, InputError, error_words, refuse
from timellm.contract.job import EventKind, Job
from timellm.contract.layout import TrialFolder


def main(arguments: list[str]) -> int:
    """Train as a job file says and leave `result.json` and `events.jsonl` in its folder."""
    job = Job.from_json(Path(arguments[0]).read_text())
    folder = Path(job.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    should_stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: should_stop.set())
    with TrialFolder(folder).events.open("a", buffering=1) as events:
        _emit(events, {"event": EventKind.STARTED, "pid": os.getpid()})
        return _train(job, folder, events, should_stop)


def _train(job: Job, folder: Path, events: Any, should_stop: threading.Event) -> int:
    from timellm.contract.result import RunResult

    try:
        result = _run(job, folder, events, should_stop)
    except InputError as error:
        result, status = RunResult(error=str(error)), refuse(error)
    except Exception as error:
        traceback.print_exc()
        result, status = RunResult(error=error_words(error)), ExitStatus.NOTHING
    else:
        status = ExitStatus.of(result.state)
    result.write(TrialFolder(folder).result)
    if status in (ExitStatus.NOTHING, ExitStatus.WRONG) and result.state == State.FAILED:
        _emit(events, {"event": EventKind.DONE, "state": State.FAILED})
    return status


def _run(job: Job, folder: Path, events: Any, should_stop: threading.Event) -> Any:
    import torch

    torch.set_num_threads(job.threads)
    from timellm.contract.config import RunConfig
    from timellm.run.training import RunOptions, TrainingRun

    options = RunOptions(
        folder=folder,
        max_memory_gib=job.max_memory_gib,
        min_timed_steps=job.min_timed_steps,
        rungs=job.rungs,
        clock=job.clock,
        prompt_memory_gib=job.prompt_memory_gib,
        order_seed=job.order_seed,
        max_timing_seconds=job.max_timing_seconds,
        on_event=lambda event: _emit(events, event),
        should_stop=should_stop,
    )
    return TrainingRun(RunConfig.from_dict(dict(job.config)), options).run()


def _emit(events: Any, event: dict[str, Any]) -> None:
    events.write(json.dumps(event) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
