"""What is compiled on this machine: DeepSpeed's extensions, when they are first loaded, and torch.compile's code.

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
COMPILED = "TORCHINDUCTOR_CACHE_DIR"
CPU_ADAM = "cpu_adam"
"""DeepSpeed's name of Adam on the CPU, the one extension that runs here need."""
_TORCHS_OWN = "torchinductor_"
"""Name, before the user's, of the folder that torch chooses as soon as its compiler is imported."""


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


def is_compiled(name: str) -> bool:
    """Whether an extension has been compiled here.

    Args:
        name: DeepSpeed's, such as `CPU_ADAM`.
    """
    return Path(os.environ.get(VARIABLE) or _own_folder(), name, f"{name}.so").is_file()


def keep_compiled_code_apart() -> None:
    """Give torch.compile a folder of its own where `ATEN_CPU_CAPABILITY` holds a CPU to fewer instructions than it has.

    torch's keys of compiled code do not hold that variable. A process that was held to AVX2 took up the code of one
    that was not (torch 2.13): its losses were not finite, or it was ended by SIGSEGV.
    """
    capability = os.environ.get("ATEN_CPU_CAPABILITY", "")
    named = os.environ.get(COMPILED)
    if capability.isalnum() and (named is None or Path(named).name.startswith(_TORCHS_OWN)):
        os.environ[COMPILED] = str(cache_dir() / "compiled" / capability)


def _own_folder() -> Path:
    """Folder of what these versions of Python and torch compile."""
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    folder = cache_dir() / "extensions" / f"{python}-torch{torch.__version__}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
