"""Searches with the real worker on a tiny backbone and a short made series, in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.search.searching import ROOT
from tests.timellm.tiny_runs import tiny_config

FAULTY_WORKER = Path(__file__).with_name("faulty_worker.py")

_PROGRAM = f"""
import sys
from search.run import main
sys.exit(main(sys.argv[1:], (sys.executable, {str(FAULTY_WORKER)!r})))
"""

FIXED = """
[fixed]
seq_len = 48
label_len = 24
pred_len = 24
num_prototypes = 50
llm_layers = 2
warmup_steps = 1
"""
"""Settings of a space for the tiny backbone and the short series."""


def search_tiny(
    folder: Path, name: str, space: str, *flags: str, faults: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    """A search that has ended; its run is `folder/runs/NAME`.

    Args:
        folder: Where the backbone, the series and the run are.
        name: Name of the run.
        space: Text of the space's file.
        flags: More flags.
        faults: What goes wrong in the worker, by "setting=value"; see `faulty_worker`.
    """
    config = tiny_config(folder)
    (file := folder / f"{name}.toml").write_text(space)
    command = [sys.executable, "-c", _PROGRAM, "--space", str(file), "--name", name, "--runs_dir", str(folder / "runs")]
    command += ["--data", "custom", "--root_path", str(folder), "--data_path", "series.csv"]
    command += ["--llm_model", "gpt2", "--llm_path", str(config.llm_path), "--no-dashboard", *flags]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "FAKE_FAULTS": json.dumps(faults or {}),
    }
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
