"""How a block of the backbone is called: as it is, or with its activations recomputed in the backward pass.

Where they are recomputed, the block's inputs are kept instead: on the device, or in host memory until they are needed.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

RunBlock = Callable[..., Any]
"""Calls a block, its first argument, with the arguments that follow."""


def run_as_it_is(block: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    """Autograd keeps what it needs."""
    return block(*inputs, **named)


def checkpoint_on_device(block: Callable[..., Any], *inputs: Any, draws: bool = True, **named: Any) -> Any:
    """Keep the tensors among `inputs`, and the state of the random generators where the block draws from them."""
    return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=draws, **named)


def checkpoint_on_host(block: Callable[..., Any], *inputs: Any, draws: bool = True, **named: Any) -> Any:
    """Keep the tensors among `inputs` that have gradients in host memory, page-locked for a GPU's sake.

    The others, such as a mask that all blocks share, stay where they are. On a CPU nothing is copied. What the block
    computes is not kept: it meets the inner hooks of the checkpoint.
    """
    moved = [place for place, part in enumerate(inputs) if isinstance(part, torch.Tensor) and part.requires_grad]
    rest = [None if place in moved else part for place, part in enumerate(inputs)]

    def call(*parts: torch.Tensor) -> Any:
        whole = dict(enumerate(rest)) | dict(zip(moved, parts, strict=True))
        return block(*whole.values(), **named)

    tensors = [inputs[place] for place in moved]
    with torch.autograd.graph.save_on_cpu(pin_memory=any(part.is_cuda for part in tensors)):
        return checkpoint(call, *tensors, use_reentrant=False, preserve_rng_state=draws)
