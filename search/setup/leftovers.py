"""What killed searches could not remove: half-written files of a run folder."""

import contextlib
import os
import re
from pathlib import Path

import psutil

_DRAFT = re.compile(r"\..+\.(\d+)\.[0-9a-f]{8}\.tmp")
"""A file that `timellm.contract.files` was writing, with the process that wrote it."""


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
