"""What killed searches could not remove: half-written files of a run folder, and Ray's session folders."""

import contextlib
import os
import re
import shutil
from pathlib import Path

import psutil

_DRAFT = re.compile(r"\..+\.(\d+)\.[0-9a-f]{8}\.tmp")
"""A file that `timellm.contract.files` was writing, with the process that wrote it."""
_OWNER = "timellm-search.pid"
"""File in a session folder of Ray's that says which search it belongs to; folders without it are others'."""


def remove_drafts(run: Path) -> list[Path]:
    """Remove what processes that are dead were writing into a run folder when they died.

    Returns:
        What was removed.
    """
    removed = []
    for folder, subfolders, names in os.walk(run):
        if Path(folder) == run and "ray" in subfolders:
            subfolders.remove("ray")  # Tune's own files
        for name in names:
            found = _DRAFT.fullmatch(name)
            if found is not None and not psutil.pid_exists(int(found[1])):
                with contextlib.suppress(OSError):
                    Path(folder, name).unlink()
                    removed.append(Path(folder, name))
    return removed


def claim_session(session: Path) -> None:
    """Say that a session folder is this process's, so that a later search can remove it."""
    with contextlib.suppress(OSError):
        (session / _OWNER).write_text(str(os.getpid()))


def remove_sessions(folder: Path) -> list[Path]:
    """Remove the session folders of searches that are dead.

    Args:
        folder: Where Ray keeps its sessions.

    Returns:
        What was removed.
    """
    removed = []
    for owner in folder.glob(f"session_*/{_OWNER}"):
        with contextlib.suppress(OSError, ValueError):
            if not owner.parent.is_symlink() and not psutil.pid_exists(int(owner.read_text())):
                shutil.rmtree(owner.parent, ignore_errors=True)
                removed.append(owner.parent)
    return removed
