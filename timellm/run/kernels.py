"""Which attention kernel a run's forward pass takes on its device."""

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from timellm.model.timellm import PromptBatch
from timellm.run.batches import Batch

_FUSED = "_scaled_dot_product_"
_ROWS = 2


class _Kernels(TorchDispatchMode):
    """Records the fused attention operations that torch chose."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name.startswith(_FUSED):
            self.names.add(name.removeprefix(_FUSED))
        return func(*args, **(kwargs or {}))


def attention_kernel(model: Any, batch: Batch, attention: str) -> str:
    """Name of the kernel: eager, or what torch's fused attention takes here.

    Torch chooses by device, number format, mask and shape, so one uncompiled forward pass over two windows is asked.
    Dropout is off, so that no random number is drawn.

    Args:
        model: The network.
        batch: Windows of the training split.
        attention: What the run asks for, eager or sdpa.

    Returns:
        eager, flash_attention, flash_attention_for_cpu, efficient_attention, cudnn_attention, or math where torch
        takes none of them; several joined by commas.
    """
    ids, lengths = batch.prompt.ids[:_ROWS], batch.prompt.lengths
    prompt = PromptBatch(ids, None if lengths is None else lengths[:_ROWS])
    was_training = model.training
    model.eval()
    with _Kernels() as kernels:
        type(model).forward(model, batch.x[:_ROWS], prompt)
    model.train(was_training)
    return ", ".join(sorted(kernels.names)) or ("math" if attention == "sdpa" else attention)
