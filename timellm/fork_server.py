"""A process that has imported what a training needs and forks a worker per job: `python -m timellm.fork_server FD`.

Imports are most of a worker's start. The server is started with the worker's environment, of which much acts only at
exec (OMP_*, MKL_*, MALLOC_*), imports everything once, and is asked for workers over a socket, its argument. It forks
only while it has a single thread and has not touched CUDA: neither a lock that another thread holds nor a GPU's context
survives a fork.

One JSON object per line. From the server, first: `{"ready": true}`, or `{"refused": "why"}` and its end. To the server:
`{"job": path, "log": path, "folder": path}`. From the server: `{"pid": n}`, and when that worker has ended
`{"ended": n, "status": s}` with a status as subprocess gives it, negative for a signal. The server ends when its socket
is closed, and its workers die with it.
"""

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from timellm.machine.parent import die_with_parent

IMPORTS = (
    "timellm.run.training",
    "timellm.worker",
    "transformers.models.bert.modeling_bert",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.llama.modeling_llama",
)
"""What every worker needs, and the published language models."""

ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Of the server alone: OpenBLAS and pyarrow would start threads as they are imported."""

_READ_BYTES = 2**16


def main(arguments: Sequence[str]) -> int:
    """Import, answer, fork; in a worker, train.

    Args:
        arguments: The socket's file descriptor.

    Returns:
        The exit status: the worker's own, in a worker.
    """
    return serve(int(arguments[0]), IMPORTS, _train)


def serve(descriptor: int, imports: Sequence[str], work: Callable[[list[str]], int]) -> int:
    """Serve until the socket is closed.

    Args:
        descriptor: Of the socket.
        imports: Modules to import first.
        work: What a worker does with its arguments, the path of its job.

    Returns:
        The exit status: that of `work`, in a worker.
    """
    with socket.socket(fileno=descriptor) as channel:
        for name in imports:
            importlib.import_module(name)
        for name in ENVIRONMENT:
            os.environ.pop(name, None)
        reason = why_not_fork()
        _say(channel, {"refused": reason} if reason else {"ready": True})
        job = None if reason else _Server(channel).run()
    return 0 if job is None else work([job])


def _train(arguments: list[str]) -> int:
    from timellm import worker
    from timellm.machine.memory import count_as_started, file_bytes

    count_as_started(file_bytes(os.getppid()))
    return worker.main(arguments)


def why_not_fork() -> str | None:
    """Why a fork of this process could not be trusted; None if it can."""
    threads = os.listdir("/proc/self/task")
    if len(threads) != 1:
        return f"it has {len(threads)} threads"
    if "/libcuda.so" in Path("/proc/self/maps").read_text():
        return "it has touched CUDA"
    return None


class _Server:
    """Forks on request and tells how each worker ended."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ)
        self._workers: dict[int, int] = {}  # process ids by the descriptor that tells of the process's end
        self._partial = b""

    def run(self) -> str | None:
        """The path of a job, in a worker; None in the server, once its socket is closed."""
        gc.collect()
        gc.freeze()  # pages of what was imported stay shared
        while True:
            for key, _ in self._selector.select():
                if key.fd != self._channel.fileno():
                    self._tell_of(key.fd)
                    continue
                requests = self._requests()
                if requests is None:
                    return None
                for request in requests:
                    if self._fork(request):
                        return request["job"]

    def _requests(self) -> list[dict[str, Any]] | None:
        data = self._channel.recv(_READ_BYTES)
        if not data:
            return None
        *lines, self._partial = (self._partial + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def _fork(self, request: dict[str, Any]) -> bool:
        """Whether this is the worker that was asked for."""
        server, (ready, is_ready) = os.getpid(), os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(ready)
            self._become_worker(request, server)
            os.close(is_ready)
            return True
        os.close(is_ready)
        os.read(ready, 1)  # returns when the worker leads a group of its own, or is dead
        os.close(ready)
        watch = os.pidfd_open(pid)
        self._workers[watch] = pid
        self._selector.register(watch, selectors.EVENT_READ)
        _say(self._channel, {"pid": pid})
        return False

    def _become_worker(self, request: dict[str, Any], server: int) -> None:
        os.setsid()
        die_with_parent()
        if os.getppid() != server:
            os._exit(1)  # the server died before the kernel was asked to tell
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        self._selector.close()
        for watch in self._workers:
            os.close(watch)
        self._channel.close()
        os.chdir(request["folder"])
        log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)

    def _tell_of(self, watch: int) -> None:
        self._selector.unregister(watch)
        pid = self._workers.pop(watch)
        os.close(watch)
        _, status = os.waitpid(pid, 0)
        _say(self._channel, {"ended": pid, "status": os.waitstatus_to_exitcode(status)})


def _say(channel: socket.socket, message: dict[str, Any]) -> None:
    channel.sendall(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
