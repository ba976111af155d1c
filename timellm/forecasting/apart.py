"""Runs a command of the project in a process of its own, so that the caller's environment stays as it is."""

import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from timellm.contract.errors import ExitStatus, InputError
from timellm.machine.process import packages_path


def flags_of(settings: Mapping[str, Any]) -> list[str]:
    """Settings as flags; what is None is left out. A value that begins with a dash stays a value."""
    flags = []
    for name, value in settings.items():
        if value is None:
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        flags += [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]
    return flags


def run_apart(command: Sequence[str], what: str) -> None:
    """Run a command, and pass on what it says as it comes.

    Args:
        command: Program and arguments.
        what: What an error calls it: training, search.

    Raises:
        InputError: If it refuses its input, with its own words.
        RuntimeError: If it fails otherwise.
        KeyboardInterrupt: If the user ends it here; it is told, and ends in good order first.
    """
    environment = {**os.environ, "PYTHONPATH": packages_path(), "PYTHONUNBUFFERED": "1"}
    # A session of its own: an interrupt reaches it once, from here, and not from a notebook's process group as well.
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout is not None
    last = ""
    try:
        for line in process.stdout:
            last = line.strip() or last
            print(line, end="", flush=True)
        status = process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.communicate()
        raise
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if status == ExitStatus.WRONG:
        raise InputError(last.removeprefix("run_main.py: ") or f"The {what} refuses its input.")
    if status == ExitStatus.INTERRUPTED:
        raise KeyboardInterrupt
    if status:
        raise RuntimeError(f"The {what} ended with status {status}: {last} ({shlex.join(command)})")
