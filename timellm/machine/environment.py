"""What a training process finds around it: threads, allocator, device, seeds, versions, hardware."""

import importlib.metadata
import os
import platform
import random
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.machine.cores import usable_cores
from timellm.machine.process import worker_environment

__all__ = [
    "choose_device",
    "describe_machine",
    "git_revision",
    "package_versions",
    "seed_everything",
    "synchronize",
    "worker_environment",
]

PACKAGES = (
    "timellm-search",
    "torch",
    "transformers",
    "accelerate",
    "deepspeed",
    "ray",
    "optuna",
    "numpy",
    "pywavelets",
)
"""Packages whose versions a measurement depends on."""


def choose_device(config: RunConfig) -> torch.device:
    """The device of a run, checked against its precision; each process of several takes the GPU of its local rank.

    Raises:
        InputError: If the device is not there or cannot compute in this precision.
    """
    name = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device must be auto, cpu or cuda[:N], got {name!r}.") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device must be auto, cpu or cuda[:N], got {name!r}.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {name} needs a CUDA GPU, and torch sees none. Use --device cpu.")
    if device == torch.device("cuda") and "LOCAL_RANK" in os.environ:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if device.type == "cpu" and config.precision == "fp16":
        raise InputError("fp16 is not supported on a CPU. Use --precision bf16 or fp32.")
    if device.type == "cuda" and config.precision == "bf16" and not torch.cuda.is_bf16_supported():
        card = torch.cuda.get_device_name(device)
        raise InputError(f"bf16 is not supported by this GPU ({card}). Use --precision fp16 or fp32.")
    return device


def seed_everything(seed: int) -> None:
    """Seed weights and dropout; the order of windows has generators of its own."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that a measurement depends on."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def describe_machine() -> dict[str, Any]:
    """CPU, cores, memory and GPUs of this machine."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cpu": _cpu_name(),
        "cores": usable_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": gpus,
        "platform": platform.platform(),
    }


def git_revision() -> str | None:
    """Commit of this checkout, with a plus sign when files differ from it; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    try:
        describe = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=+"]
        return subprocess.run(describe, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
