"""DeepSpeed's extensions, which are compiled when they are first loaded.

torch marks a folder that it compiles into with a file named `lock`, and waits for ever for one that a killed process
left there. So extensions have a folder of this project's own, used by one process at a time.
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from timellm.cache import cache_dir

VARIABLE = "TORCH_EXTENSIONS_DIR"


def load_extensions(builders: Iterable[Any]) -> None:
    """Load extensions, compiled by whoever is first; later uses in this process find them loaded.

    Args:
        builders: DeepSpeed's builders; one that this machine cannot compile is left to whoever needs it.
    """
    own = _own_folder()
    named = os.environ.setdefault(VARIABLE, str(own))
    with FileLock(own / "in-use"):
        if named == str(own):
            for left in own.glob("*/lock"):
                left.unlink(missing_ok=True)
        for builder in builders:
            if builder.is_compatible():
                builder.load(verbose=False)


def _own_folder() -> Path:
    """Folder of what these versions of Python and torch compile."""
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    folder = cache_dir() / "extensions" / f"{python}-torch{torch.__version__}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
