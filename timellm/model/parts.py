"""Names of the parts of a training step, which a profile tells apart."""

from contextlib import AbstractContextManager, nullcontext

import torch

PREFIX = "timellm: "
"""What the ranges of a trace start with."""

PARTS = ("data", "prompt", "reprogramming", "backbone", "head", "network", "optimizer")
"""Parts of a step in the order of the work.

Patches are embedded and prototypes mapped in `reprogramming`. `backbone` holds the prompt too where it is recomputed
with the patches. `network` is the rest of the forward pass, and all of it where it is compiled as one.
"""

_NOTHING = nullcontext()


def part(name: str) -> AbstractContextManager:
    """Mark what runs inside for the profiler; nothing while none records, and in compiled code.

    Args:
        name: One of PARTS.
    """
    if torch.compiler.is_compiling() or not torch.autograd.profiler._is_profiler_enabled:
        return _NOTHING
    return torch.profiler.record_function(PREFIX + name)
