"""One process of a training on several devices, in an actor of Ray Train: it starts a worker and follows it."""

import contextlib
import dataclasses
import json
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from search.tune.worker_process import WorkerProcess, WorkerSettings
from timellm.contract.columns import State
from timellm.contract.files import write_atomically
from timellm.contract.job import Job
from timellm.contract.layout import TrialFolder

_SECONDS_BETWEEN_LOOKS = 0.1


class ProcessEnded(Exception):  # noqa: N818 - an interrupted process did not fail
    """One of the processes did not complete, so that Ray Train ends the others."""


def train_rank(values: dict[str, Any]) -> None:
    """Run one process of a training, with its place among the others in its environment.

    Args:
        values: The trial's job, from `Job.to_dict`.

    Raises:
        ProcessEnded: If it did not complete.
    """
    from ray import train
    from ray.train.collective import broadcast_from_rank_zero
    from ray.util import get_node_ip_address

    job = Job.from_dict(values)
    context, folder = train.get_context(), TrialFolder(Path(job.run_dir))
    rank = context.get_world_rank()
    with _reserved_port() as port:
        address = broadcast_from_rank_zero([get_node_ip_address(), port] if rank == 0 else None)
        place = {
            "RANK": rank,
            "WORLD_SIZE": context.get_world_size(),
            "LOCAL_RANK": context.get_local_rank(),
            "LOCAL_WORLD_SIZE": context.get_local_world_size(),
            "MASTER_ADDR": address[0],
            "MASTER_PORT": address[1],
        }
        outcome = _follow(_worker(job, rank, place), folder, rank)
    write_atomically(folder.outcome(rank), json.dumps(outcome) + "\n")
    if outcome["state"] != State.COMPLETE:
        raise ProcessEnded(f"Process {rank} ended as {outcome['state']}: {outcome.get('error')}")


def _worker(job: Job, rank: int, place: Mapping[str, Any]) -> WorkerProcess:
    """The worker of this process: the trial's job on one device, in this process's folder."""
    assert job.launch is not None
    settings = WorkerSettings(
        command=job.launch.command,
        project_root=job.launch.project_root,
        environment={**job.launch.environment, **{name: str(value) for name, value in place.items()}},
    )
    config = dict(job.config)
    if config["device"] == "cuda":
        config["device"] = f"cuda:{place['LOCAL_RANK']}"
    folder = TrialFolder(Path(job.run_dir)).rank(rank).path
    return WorkerProcess(settings, dataclasses.replace(job, config=config, run_dir=str(folder), launch=None))


def _follow(worker: WorkerProcess, folder: TrialFolder, rank: int) -> dict[str, Any]:
    """Wait for a process to end; its outcome, when it was, and whether it left a result itself."""
    try:
        while worker.is_running():
            worker.new_events()
            if rank == 0 and folder.interrupt.exists():
                worker.interrupt("The trial was told to end.")
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        ended_at = time.time()
        has_result = folder.rank(rank).result.is_file()
        known = {"began_at": worker.started_at, "ended_at": ended_at, "has_result": has_result}
        return {**worker.outcome(), **known}
    finally:
        worker.kill("The process that watched the worker ended.")


@contextlib.contextmanager
def _reserved_port() -> Iterator[int]:
    """A port that nobody else gets meanwhile, but on which the worker can listen.

    Linux lets two sockets have one port if both allow it and only one of them listens.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("", 0))
        yield holder.getsockname()[1]
