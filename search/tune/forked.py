"""Workers that a server forks, instead of a new interpreter for each: they start without importing anything."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timellm.fork_server import ENVIRONMENT
from timellm.machine.parent import die_with_parent

SERVER_COMMAND = (sys.executable, "-m", "timellm.fork_server")
"""Program that forks workers; its socket's file descriptor follows."""

_SECONDS_TO_IMPORT = 120.0
_SECONDS_TO_FORK = 20.0
_MOST_SERVERS = 2
"""Environments whose servers are kept: each holds what it has imported in memory. The oldest one is ended, and the
workers it still has with it: an actor has one worker at a time."""
_READ_BYTES = 2**16


class ServerLostError(Exception):
    """A server that died, refused, or did not answer in time."""


class ForkServer:
    """One server, with the environment that it was started with.

    Args:
        command: Program and first arguments; the socket's file descriptor follows.
        folder: Folder that the server's packages are found in.
        environment: The worker's environment.

    Raises:
        ServerLostError: If it could not be started or will not fork.
    """

    def __init__(self, command: Sequence[str], folder: str, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._channel, theirs = socket.socketpair()
        self._partial = b""
        self._statuses: dict[int, int] = {}
        self.is_lost = False
        try:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                cwd=folder,
                env={**ENVIRONMENT, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        except OSError as error:
            raise ServerLostError(str(error)) from None
        finally:
            theirs.close()
        answer = self._answer("ready", "refused", seconds=_SECONDS_TO_IMPORT)
        if "refused" in answer:
            self.close()
            raise ServerLostError(answer["refused"])

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    def fork(self, job: Path, log: Path) -> "ForkedProcess":
        """Start a worker.

        Raises:
            ServerLostError: If the server does not answer.
        """
        request = {"job": str(job.absolute()), "log": str(log.absolute()), "folder": self._folder}
        try:
            self._channel.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            self.close()
            raise ServerLostError(str(error)) from None
        return ForkedProcess(self, self._answer("pid", seconds=_SECONDS_TO_FORK)["pid"])

    def status_of(self, pid: int, seconds: float | None) -> int | None:
        """Exit status of a worker, waited for so long (None: for ever); None while it runs.

        The workers of a server that has died were killed with it.
        """
        ends = None if seconds is None else time.monotonic() + seconds
        while pid not in self._statuses and not self.is_lost:
            left = None if ends is None else max(0.0, ends - time.monotonic())
            if not self._listen(left) and left == 0.0:
                return None
        return self._statuses.get(pid, -signal.SIGKILL)

    def close(self) -> None:
        """End the server, and its workers with it."""
        self.is_lost = True
        self._channel.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _answer(self, *names: str, seconds: float) -> dict[str, Any]:
        ends = time.monotonic() + seconds
        while not self.is_lost:
            left = ends - time.monotonic()
            found = [message for message in self._listen(max(0.0, left)) if set(names) & set(message)]
            if found:
                return found[0]
            if left <= 0:
                self.close()
        raise ServerLostError("The server of the workers died or did not answer.")

    def _listen(self, seconds: float | None) -> list[dict[str, Any]]:
        """Messages that come within so many seconds; the ends of workers are kept."""
        if not select.select([self._channel], [], [], seconds)[0]:
            return []
        try:
            data = self._channel.recv(_READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self.close()
            return []
        *lines, self._partial = (self._partial + data).split(b"\n")
        messages = [json.loads(line) for line in lines]
        self._statuses |= {message["ended"]: message["status"] for message in messages if "ended" in message}
        return messages


class ForkedProcess:
    """A forked worker, with the interface of a `subprocess.Popen`."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self._server, self.pid = server, pid

    @property
    def parent(self) -> int:
        """Process id of the server, which waits for it."""
        return self._server.pid

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._server.status_of(self.pid, 0.0)

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        status = self._server.status_of(self.pid, None)
        assert status is not None
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class ForkServers:
    """The servers of this process, one for each environment.

    A server that could not be started, or did not fork, is not tried again: workers are then started by exec.
    """

    def __init__(self) -> None:
        self._servers: dict[tuple[Any, ...], ForkServer | None] = {}

    def start(
        self, command: Sequence[str], folder: str, environment: Mapping[str, str], job: Path, log: Path
    ) -> ForkedProcess | None:
        """Start a worker.

        Args:
            command: Program of the server.
            folder: Folder that its packages are found in.
            environment: The worker's environment.
            job: The worker's job file.
            log: File that its output is added to.

        Returns:
            The worker; None if none can be forked here.
        """
        key = (tuple(command), folder, tuple(sorted(environment.items())))
        try:
            server = self._server(key, command, folder, environment)
            return None if server is None else server.fork(job, log)
        except ServerLostError:
            self._servers[key] = None
            return None

    def close(self) -> None:
        """End all of them."""
        for server in filter(None, self._servers.values()):
            server.close()
        self._servers.clear()

    def _server(
        self, key: tuple[Any, ...], command: Sequence[str], folder: str, environment: Mapping[str, str]
    ) -> ForkServer | None:
        if sys.platform != "linux":
            return None
        if key in self._servers:
            known = self._servers[key]
            if known is None or not known.is_lost:
                return known
        for old in list(self._servers)[: 1 - _MOST_SERVERS]:
            server = self._servers.pop(old)
            if server is not None:
                server.close()
        self._servers[key] = ForkServer(command, folder, environment)
        return self._servers[key]


SERVERS = ForkServers()
"""Those of this process: they outlive a trial, as the actor that starts trials does."""
