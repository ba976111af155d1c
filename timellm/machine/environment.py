"""What a training process finds around it: threads, allocator, device, seeds, versions, hardware."""

import importlib.metadata
import os
import platform
import random
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.machine.cores import usable_cores
from timellm.machine.launcher import is_launched
from timellm.machine.nvml import NvmlMissingError, start_nvml
from timellm.machine.process import PROJECT_ROOT, worker_environment

__all__ = [
    "choose_device",
    "computes_in_bf16",
    "describe_machine",
    "git_revision",
    "package_versions",
    "seed_everything",
    "synchronize",
    "unusable_gpu",
    "use_tf32",
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
    """The device of a run, checked against its precision and made the current device of the process.

    Each process of several takes the GPU of its local rank. A GPU becomes torch's current one before anything is put
    there: batches, events and Accelerate go to the current one. `auto` warns where a GPU is there that torch cannot
    use.

    Raises:
        InputError: If the device is not there or cannot compute in this precision.
    """
    device = _named_device(config.device)
    if device.type == "cuda":
        torch.cuda.init()
        torch.cuda.set_device(device.index or 0)
    elif config.device == "auto" and (problem := unusable_gpu()):
        warnings.warn(f"{problem} This run is on the CPU.", stacklevel=2)
    if problem := _precision_problem(config.precision, device):
        raise InputError(problem)
    use_tf32(config.precision == "tf32")
    return device


def use_tf32(wanted: bool) -> None:
    """Whether a GPU may round the operands of fp32 products and convolutions to 10 bits: torch's default is mixed."""
    torch.backends.cuda.matmul.allow_tf32 = wanted
    torch.backends.cudnn.allow_tf32 = wanted


def computes_in_bf16() -> bool:
    """Whether the current GPU has units for bf16: older ones emulate it, which is slow."""
    return torch.cuda.is_bf16_supported(including_emulation=False)


def unusable_gpu() -> str | None:
    """Why torch cannot use the NVIDIA GPU whose driver is there; None if it can, or if there is none to use."""
    if torch.cuda.is_available() or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return None
    driver = nvidia_driver()
    if driver is None:
        return None
    if torch.version.cuda is None:
        return (
            f"There is an NVIDIA GPU (driver {driver}), but torch {torch.__version__} was built for CPUs. "
            "Install a torch wheel for CUDA; docs/faq.md says which suits this driver."
        )
    return (
        f"The NVIDIA driver ({driver}) must be new enough for CUDA {torch.version.cuda}, which torch "
        f"{torch.__version__} was built for, but torch cannot use it. Update the driver, or install a torch wheel "
        "for an older CUDA; docs/faq.md says which."
    )


def nvidia_driver() -> str | None:
    """Version of the NVIDIA driver; None without one."""
    try:
        nvml = start_nvml()
    except NvmlMissingError:
        return None
    try:
        return str(nvml.nvmlSystemGetDriverVersion()) if nvml.nvmlDeviceGetCount() else None
    except nvml.NVMLError:
        return None
    finally:
        nvml.nvmlShutdown()


def _named_device(wanted: str) -> torch.device:
    name = ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device must be auto, cpu or cuda[:N], got {name!r}.") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device must be auto, cpu or cuda[:N], got {name!r}.")
    if device.type == "cuda" and not torch.cuda.is_available():
        reason = unusable_gpu() or "Use --device cpu."
        raise InputError(f"device {name} needs a CUDA GPU, and torch sees none. {reason}")
    if device == torch.device("cuda") and "LOCAL_RANK" in os.environ and is_launched(os.environ):
        name = f"cuda:{os.environ['LOCAL_RANK']}"
        device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device must be below cuda:{torch.cuda.device_count()}, the GPUs that are there, got {name}.")
    return device


def _precision_problem(precision: str, device: torch.device) -> str | None:
    if device.type == "cpu":
        if precision in ("fp16", "tf32"):
            return f"{precision} is not supported on a CPU. Use --precision bf16 or fp32."
        return None
    if precision not in ("bf16", "tf32") or computes_in_bf16():  # the same cards have units for both
        return None
    card = torch.cuda.get_device_name(device)
    return f"{precision} is not supported by this GPU ({card}). Use --precision fp16 or fp32."


def seed_everything(seed: int) -> None:
    """Seed weights and dropout; the order of windows has its own generators."""
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
    try:
        describe = ["git", "-C", str(PROJECT_ROOT), "describe", "--always", "--abbrev=12", "--dirty=+"]
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
