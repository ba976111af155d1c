"""Where the tests look for ETTh1.csv."""

import os
from pathlib import Path

import pytest

ETT_VARIABLE = "TIMELLM_ETT_DIR"


def ett_folder() -> Path:
    """The folder of ETTh1.csv; skips the test where there is none."""
    named = os.environ.get(ETT_VARIABLE)
    folder = Path(named) if named else Path(__file__).parents[3] / "shared" / "data"
    if not (folder / "ETTh1.csv").is_file():
        pytest.skip(f"needs ETTh1.csv; name its folder with {ETT_VARIABLE}")
    return folder
