"""What the device and the processor do during training: utilisation, memory, power, temperature."""

import contextlib
import time
from types import ModuleType
from typing import Any

import psutil
import torch

from timellm.machine.cores import usable_cores
from timellm.machine.memory import GIB, ResidentMemory
from timellm.machine.nvml import NvmlMissingError, start_nvml
from timellm.machine.periodic import Periodic, descendants

SECONDS_BETWEEN_SAMPLES = 1.0

FIGURES = (
    "device_utilisation_percent",
    "device_memory_gib",
    "device_power_watts",
    "device_temperature_celsius",
    "cpu_utilisation_percent",
    "host_memory_gib",
)
"""What is sampled. On a CPU the device is the process itself, and nothing is known of power and temperature."""


class DeviceMonitor:
    """Samples figures in a thread of its own, about once a second; it never synchronises the device.

    Args:
        device: Where the training runs.
        seconds: Between two samples.

    Attributes:
        notes: Why a GPU could not be watched; empty otherwise.
    """

    def __init__(self, device: torch.device, seconds: float = SECONDS_BETWEEN_SAMPLES) -> None:
        self.notes: list[str] = []
        self._device, self._seconds = device, seconds
        self._gpu: _Gpu | None = None
        self._is_open = False
        self._load: _ProcessLoad | None = None
        self._periodic: Periodic | None = None
        self._samples: dict[str, list[float]] = {name: [] for name in FIGURES}

    @property
    def is_running(self) -> bool:
        """Whether it samples."""
        return self._periodic is not None

    def open(self) -> None:
        """Load a GPU's driver library, which takes a while: before the steps that are timed."""
        if self._device.type == "cuda" and not self._is_open:
            self._gpu, problem = _open_gpu(self._device)
            self.notes += [problem] if problem else []
            self._is_open = True

    def start(self) -> None:
        """Start sampling."""
        self.open()
        self._load = _ProcessLoad()
        self._periodic = Periodic("device-monitor", self._seconds, self.sample)
        self._periodic.__enter__()

    def stop(self) -> None:
        """Stop sampling; what was shorter than the time between two samples gets one."""
        if self._periodic is None:
            self._close()
            return
        self._periodic.__exit__()
        self._periodic = None
        if not self._samples["cpu_utilisation_percent"]:
            self.sample()
        self._close()

    def _close(self) -> None:
        if self._gpu is not None:
            self._gpu.close()
        self._gpu, self._is_open = None, False

    def __enter__(self) -> "DeviceMonitor":
        """Start sampling."""
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop sampling."""
        self.stop()

    def summary(self) -> dict[str, float]:
        """Mean and maximum of each figure that could be read, as `mean_FIGURE` and `max_FIGURE`."""
        found: dict[str, float] = {}
        for name, values in self._samples.items():
            if values:
                found[f"mean_{name}"] = round(sum(values) / len(values), 3)
                found[f"max_{name}"] = round(max(values), 3)
        return found

    def sample(self) -> bool:
        """Take every figure once; called by the thread, and once where a run is too short for it."""
        assert self._load is not None
        figures = self._load.read()
        if self._device.type == "cpu":
            figures["device_utilisation_percent"] = figures["cpu_utilisation_percent"]
            figures["device_memory_gib"] = figures["host_memory_gib"]
        elif self._gpu is not None:
            figures |= self._gpu.read()
        for name, value in figures.items():
            self._samples[name].append(value)
        return True


class _ProcessLoad:
    """This process and its loader workers: their share of the cores they may use, and their memory."""

    def __init__(self) -> None:
        self._process, self._cores = psutil.Process(), usable_cores()
        self._memory = ResidentMemory(self._process)
        self._at, self._used = time.perf_counter(), self._seconds_used()

    def read(self) -> dict[str, float]:
        """CPU share since the last reading, and resident memory."""
        now, used = time.perf_counter(), self._seconds_used()
        share = max(0.0, used - self._used) / max(now - self._at, 1e-9) / self._cores
        self._at, self._used = now, used
        return {
            "cpu_utilisation_percent": min(100.0, 100 * share),
            "host_memory_gib": self._memory.read() / GIB,
        }

    def _seconds_used(self) -> float:
        """CPU time of the process, of children that have ended, and of those that live."""
        own = self._process.cpu_times()
        used = own.user + own.system + own.children_user + own.children_system
        for child in descendants(self._process):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = child.cpu_times()
                used += times.user + times.system
        return used


class _Gpu:
    """One GPU as its driver sees it (NVML); a figure that the card does not give is left out.

    `torch.cuda.utilization` and its like ask NVML too, but by a card's number: they do not know slices of one (MIG).
    """

    def __init__(self, nvml: ModuleType, handle: Any) -> None:
        self._nvml = nvml
        self._readers = {
            "device_utilisation_percent": lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu,
            "device_memory_gib": lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used / GIB,
            "device_power_watts": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
            "device_temperature_celsius": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        }

    def read(self) -> dict[str, float]:
        """Every figure that the card gives."""
        figures = {}
        for name, read in self._readers.items():
            with contextlib.suppress(self._nvml.NVMLError):
                figures[name] = float(read())
        return figures

    def close(self) -> None:
        """Let go of the driver's library."""
        self._nvml.nvmlShutdown()


def handle_of(nvml: ModuleType, uuid: str) -> Any:
    """The driver's name of a GPU, or of a slice of one (MIG), which torch numbers alike."""
    try:
        return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except nvml.NVMLError:
        return nvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")


def _open_gpu(device: torch.device) -> tuple[_Gpu | None, str | None]:
    """The GPU, or why it cannot be watched."""
    try:
        nvml = start_nvml()
    except NvmlMissingError as missing:
        return None, f"Utilisation, power and temperature of the GPU were not read: {missing}."
    try:
        return _Gpu(nvml, handle_of(nvml, str(torch.cuda.get_device_properties(device).uuid))), None
    except nvml.NVMLError as error:
        nvml.nvmlShutdown()
        return None, f"Utilisation, power and temperature of the GPU were not read: {error}."
