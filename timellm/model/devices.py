"""What a device asks of the code that computes on it."""

import functools

import torch
from torch import Tensor


def launches_kernels(device: torch.device) -> bool:
    """Whether every operation there is a kernel that the process launches, so that few large ones are better.

    A fast GPU stands still between the kernels of a small batch. On a CPU an operation costs next to nothing by itself,
    and what stays in its caches counts.
    """
    return device.type != "cpu"


def product_in_fp32(left: Tensor, right: Tensor) -> Tensor:
    """The matrix product of operands of one type, in fp32: by one kernel where the device has one for it."""
    if left.dtype == torch.float32:
        return torch.mm(left, right)
    if widens_products(left.device.type, left.dtype):
        return torch.mm(left, right, out_dtype=torch.float32)
    return torch.mm(left, right).float()


@functools.cache
def widens_products(device_type: str, dtype: torch.dtype) -> bool:
    """Whether torch has products there whose operands are of a type and whose result is fp32; tried once."""
    if device_type != "cuda" or torch.version.hip is not None:
        return False
    tried = torch.ones(16, 16, dtype=dtype, device=device_type)
    try:
        torch.mm(tried, tried, out_dtype=torch.float32)
    except (NotImplementedError, RuntimeError, TypeError):
        return False
    return True
