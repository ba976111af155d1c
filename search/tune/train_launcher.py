"""A training on several devices: `python -m search.tune.train_launcher JOB.json` takes the place of a worker.

It joins the running Ray and lets Ray Train reserve one bundle of the cluster per device and start a process in each
(`search.tune.train_rank`). If one process ends, all end, and one of them says how the trial ended. If this
launcher is killed, Ray ends its actors, and each worker dies with its actor.
"""

import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search.tune.train_rank import train_rank
from timellm.contract.columns import State
from timellm.contract.errors import ExitStatus, last_line
from timellm.contract.files import write_atomically
from timellm.contract.job import Job, Launch
from timellm.contract.layout import TrialFolder

_OF_A_PROCESS = ("rank", "began_at", "ended_at", "has_result")
"""What is known about a process besides its result."""


def main(arguments: list[str]) -> int:
    """Train as a job file says and leave `result.json` and `events.jsonl` in its folder."""
    began_at = time.time()
    job = Job.from_json(Path(arguments[0]).read_text())
    assert job.launch is not None
    folder, devices = TrialFolder(Path(job.run_dir)), job.launch.devices
    _clear(folder, devices)
    _join_ray(job.launch)
    signal.signal(signal.SIGTERM, lambda *_: _interrupt(folder))
    problem = _train(job, job.launch)
    outcomes = [outcome for rank in range(devices) if (outcome := _outcome(folder, rank)) is not None]
    _clear(folder, 0)
    if not outcomes:
        print(f"Ray Train could not run the trial on {devices} devices: {problem or 'no process ran'}", file=sys.stderr)
        return ExitStatus.NOTHING
    result = conclude(outcomes, devices, began_at)
    write_atomically(folder.result, json.dumps(result, indent=2) + "\n")
    return ExitStatus.DONE if result["state"] == State.COMPLETE else ExitStatus.NOTHING


def conclude(outcomes: Sequence[dict[str, Any]], devices: int, began_at: float) -> dict[str, Any]:
    """How a trial ended, from how its processes did.

    A process that ran out of memory, diverged, was told to stop, or died without a word is the cause; one that left
    with an exception may only have lost a neighbour. Among equals the first one to end counts.

    Args:
        outcomes: One per process that has ended by itself, in order of their ranks.
        devices: Processes of the trial.
        began_at: Unix time at which the launcher began: what it took to start the processes counts as start-up.
    """

    def rank_of_cause(outcome: dict[str, Any]) -> tuple[int, float]:
        if outcome["rank"] == 0 and outcome["state"] == State.COMPLETE:
            return -1, 0.0
        is_exception = outcome["state"] in (State.FAILED, State.COMPLETE) and outcome["has_result"]
        return int(is_exception) + int(outcome["state"] == State.COMPLETE), outcome["ended_at"]

    first = min(outcomes, key=rank_of_cause)
    cause = dict(first)
    if cause["state"] == State.COMPLETE and cause["rank"]:
        cause |= {"state": str(State.FAILED), "error": "The first process ended without a result."}
    if cause["rank"] and cause.get("error"):
        cause["error"] = f"Process {cause['rank'] + 1} of {devices}: {cause['error']}"
    for name in ("startup_seconds", "total_seconds"):
        if cause.get(name) is not None:
            cause[name] = round(cause[name] + max(0.0, cause["began_at"] - began_at), 3)
    return {name: value for name, value in cause.items() if name not in _OF_A_PROCESS}


def _train(job: Job, launch: Launch) -> str | None:
    """Let Ray Train run the processes; what went wrong, in one line."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    from search.tune.train_backend import DevicesConfig, DevicesTrainer

    trainer = DevicesTrainer(
        train_rank,
        train_loop_config=job.to_dict(),
        backend_config=DevicesConfig(),
        scaling_config=ScalingConfig(
            num_workers=launch.devices,
            use_gpu=launch.resources.get("GPU", 0) > 0,
            resources_per_worker=dict(launch.resources),
        ),
        run_config=RunConfig(
            name=TrialFolder(Path(job.run_dir)).ray_train.name,
            storage_path=job.run_dir,
            failure_config=FailureConfig(max_failures=0),
        ),
    )
    try:
        trainer.fit()
    except Exception as error:
        return last_line(error, type(error).__name__)
    return None


def _join_ray(launch: Launch) -> None:
    """Join the Ray of the search, as a job of its own."""
    import ray

    from search.tune.train_backend import ENVIRONMENT

    os.environ.update({**ENVIRONMENT, **os.environ})
    for name in ("ray", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    ray.init(
        address=launch.address,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
        runtime_env={"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}},
    )


def _interrupt(folder: TrialFolder) -> None:
    """Ask the first process to end in good order; if there is none yet, end at once."""
    if not folder.events.exists():
        os._exit(ExitStatus.INTERRUPTED)
    folder.interrupt.touch()


def _outcome(folder: TrialFolder, rank: int) -> dict[str, Any] | None:
    """How a process ended; None if it was still running when it was ended with the others."""
    try:
        return {**json.loads(folder.outcome(rank).read_text()), "rank": rank}
    except FileNotFoundError:
        return None


def _clear(folder: TrialFolder, devices: int) -> None:
    """Remove what is useless after a trial, and the folders that an earlier attempt left for so many devices."""
    for path in (folder.interrupt, *folder.outcomes):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    shutil.rmtree(folder.ray_train, ignore_errors=True)
    for rank in range(1, devices):
        shutil.rmtree(folder.rank(rank).path, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
