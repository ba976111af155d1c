"""Environment of a training process, which must be there before the process starts, and its place among others."""

import gc
import os
import sys
from pathlib import Path

from timellm.machine.cores import usable_cores

ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "20000000000", "MALLOC_TOP_PAD_": "268435456"}
"""glibc settings that keep freed memory in the process: page faults of large temporaries cost up to 40 % of a step."""

PROJECT_ROOT = Path(__file__).resolve().parents[2]
"""Folder that the packages are in."""


def packages_path(root: Path | str = PROJECT_ROOT) -> str:
    """The PYTHONPATH of a process that takes the project's packages from one folder, whatever is installed.

    Args:
        root: That folder; what this process's own PYTHONPATH names follows.
    """
    return os.pathsep.join(dict.fromkeys([str(root), *filter(None, [os.environ.get("PYTHONPATH")])]))


def worker_environment(threads: int) -> dict[str, str]:
    """Environment variables that a training process must be started with.

    Args:
        threads: CPU threads of the process.
    """
    count = str(threads)
    return {
        **ALLOCATOR,
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def world_size() -> int:
    """Processes that a launcher has started to train together; 1 without one."""
    return _number("WORLD_SIZE", 1)


def _number(name: str, default: int) -> int:
    """A launcher's variable as a number; other text counts as not set, and is refused where a command starts."""
    text = os.environ.get(name, "").strip()
    return int(text) if text.isdecimal() else default


def process_rank() -> int:
    """Number of this process among them, from 0."""
    return _number("RANK", 0)


def leave_process_group() -> None:
    """End the communication of processes that trained together, after all of them have come to their end.

    Its threads hold tensors; one that frees them while the interpreter shuts down takes the process with it.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        gc.collect()  # wrapped models are parts of cycles, and hold the group
        distributed.destroy_process_group()


def restart_with_environment() -> None:
    """Start this command again with the allocator's settings, so that it trains as fast as a search's trial.

    Does nothing if any of them is set, to whichever value, or if the C library is not glibc.
    """
    if sys.platform != "linux" or any(name in os.environ for name in ALLOCATOR):
        return
    threads = os.environ.get("OMP_NUM_THREADS", "")
    wanted = worker_environment(int(threads) if threads.isdecimal() and int(threads) else usable_cores())
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**wanted, **os.environ})
