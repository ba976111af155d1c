"""Counts what a step asks of a GPU, without one: the kernels it launches, and where it waits for the device."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_NO_KERNEL = frozenset(
    {"_unsafe_view", "_reshape_alias", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided",
     "resize_", "set_", "_local_scalar_dense", "_record_function_enter_new", "_record_function_exit"}
)  # fmt: skip
"""Operations that only make, or look at, the description of a tensor."""

_WAITING = frozenset({"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero"})
"""Operations whose result the process must know before it can go on."""


class LaunchCounter(TorchDispatchMode):
    """Records the operations that run inside; views launch nothing and are left out.

    Copies between devices that are not asked to go on by themselves count as waiting. So do boolean masks as indices,
    whose number of rows the process must know.

    Args:
        device_type: Count only what touches a tensor there, e.g. meta, which stands for a GPU (default: everything).

    Attributes:
        launches: How often each operation ran that launches a kernel.
        waits: How often each operation ran that a GPU would make the process wait for.
    """

    def __init__(self, device_type: str | None = None) -> None:
        super().__init__()
        self._device_type = device_type
        self.launches: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """Launches of all operations."""
        return self.launches.total()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count an operation and run it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if self._device_type is not None and self._device_type not in _device_types(args, kwargs, result):
            return result
        if name in _WAITING or _is_masked_index(name, args) or _is_waiting_copy(name, args, kwargs, result):
            self.waits[name] += 1
        if name not in _NO_KERNEL and not _is_view(func):
            self.launches[name] += 1
        return result


def _is_view(func: Any) -> bool:
    """Whether every result shares the memory of an argument that is left as it is."""
    returns = func._schema.returns
    return bool(returns) and all(one.alias_info is not None and not one.alias_info.is_write for one in returns)


def _is_masked_index(name: str, args: Any) -> bool:
    if not name.startswith(("index", "_index_put")) or len(args) < 2 or not isinstance(args[1], list | tuple):
        return False
    return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1])


def _is_waiting_copy(name: str, args: Any, kwargs: Any, result: Any) -> bool:
    if name not in ("_to_copy", "copy_", "_copy_from"):
        return False
    does_go_on = kwargs.get("non_blocking", args[2] if name == "copy_" and len(args) > 2 else False)
    return not does_go_on and len(_device_types(args, {}, result)) > 1


def _device_types(args: Any, kwargs: Any, result: Any) -> set[str]:
    return {each.device.type for each in tree_leaves((args, kwargs, result)) if isinstance(each, Tensor)}
