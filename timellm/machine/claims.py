"""Folders in the temporary folder that say which process they belong to, so that a later one can remove them."""

import contextlib
import os
import shutil
from collections.abc import Iterable
from multiprocessing import util
from pathlib import Path

import psutil

from timellm.machine.periodic import descendants

OWNER = "timellm.pid"
"""File in a claimed folder: a process id, and the namespace that it counts in. Folders without it are others'."""


def claim(folder: Path) -> None:
    """Say that a folder is this process's."""
    with contextlib.suppress(OSError):
        (folder / OWNER).write_text(f"{os.getpid()} {_namespace()}")


def claim_loader_folder() -> None:
    """Claim the folder of the sockets that loader workers hand batches over by.

    Python makes it in the temporary folder and removes it when the process ends, unless that is killed. Made here, it
    serves the loader workers that are started later too.
    """
    with contextlib.suppress(OSError):
        claim(Path(util.get_temp_dir()))


def socket_folders(processes: Iterable[int]) -> set[Path]:
    """The folders in which processes, and those that they started, listen at sockets of Python's multiprocessing.

    Args:
        processes: Their ids; one that is dead has none.
    """
    found = set()
    for pid in processes:
        with contextlib.suppress(psutil.Error, OSError):
            parent = psutil.Process(pid)
            for process in (parent, *descendants(parent)):
                with contextlib.suppress(psutil.Error, OSError):
                    found |= {Path(one.laddr).parent for one in process.net_connections("unix") if one.laddr}
    return {folder for folder in found if folder.name.startswith("pymp-")}


def remove_claimed_by_dead(folder: Path, pattern: str) -> list[Path]:
    """Remove the folders that this user's processes have claimed and that are dead.

    Args:
        folder: Where they are.
        pattern: Their names.

    Returns:
        What was removed.
    """
    removed = []
    for owner in folder.glob(f"{pattern}/{OWNER}"):
        with contextlib.suppress(OSError, ValueError):
            pid, namespace = owner.read_text().split(maxsplit=1)
            is_mine = namespace == _namespace() and owner.parent.lstat().st_uid == os.getuid()
            if is_mine and not owner.parent.is_symlink() and not psutil.pid_exists(int(pid)):
                shutil.rmtree(owner.parent)
                removed.append(owner.parent)
    return removed


def _namespace() -> str:
    """What process ids count in: a container that shares the temporary folder has processes that are not seen here."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return "-"
