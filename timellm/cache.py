"""The folder where converted weights, tokenized prompts and checksums are kept between runs."""

import os
from pathlib import Path

from timellm.contract.errors import InputError

CACHE_VARIABLE = "TIMELLM_CACHE_DIR"
"""Environment variable that names the folder."""


def cache_dir() -> Path:
    """Folder of everything that can be computed again.

    Returns:
        An absolute path, `TIMELLM_CACHE_DIR` or else `~/.cache/timellm`; created when missing.

    Raises:
        InputError: If it cannot be created or written.
    """
    named = os.environ.get(CACHE_VARIABLE) or "~/.cache/timellm"
    try:
        folder = Path(named).expanduser().absolute()
    except RuntimeError as error:  # no home folder, or ~ and a name that no user has
        raise InputError(
            f"The cache must be a folder that can be written, got {named} ({error}) "
            f"Name another in the environment variable {CACHE_VARIABLE}."
        ) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError("no permission to write")
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"The cache must be a folder that can be written, got {folder} ({reason}). "
            f"Name another in the environment variable {CACHE_VARIABLE}."
        ) from error
    return folder
