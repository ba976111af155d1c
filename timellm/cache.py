"""The folder where converted weights, tokenized prompts and checksums are kept between runs."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """Folder of everything that can be computed again.

    Returns:
        An absolute path, `TIMELLM_CACHE_DIR` or else `~/.cache/timellm`; created when missing.
    """
    folder = Path(os.environ.get("TIMELLM_CACHE_DIR") or Path.home() / ".cache" / "timellm").expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
