"""Asks NVIDIA's driver (NVML) which processes keep a GPU busy."""

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import psutil

from timellm.machine.nvml import NvmlMissingError, start_nvml
from timellm.machine.periodic import descendants

SECONDS_BETWEEN_LOOKS = 1.0
"""The driver keeps some seconds of samples."""


class GpuWatch:
    """Adds up what processes other than a worker's use of its GPUs. It sees nothing where NVML is not there.

    Where the driver does not tell how much a process computes, as on a slice of a GPU, every other process that holds
    the GPU counts as busy. Where it gives the worker's own processes other ids, as in some containers, those processes
    count as others that held the GPU before the worker.

    Args:
        gpus: Index or UUID of each GPU, as in CUDA_VISIBLE_DEVICES.
    """

    def __init__(self, gpus: Sequence[str]) -> None:
        self._nvml: Any = running_nvml() if gpus else None
        self._handles = [handle for gpu in gpus if (handle := _handle(self._nvml, gpu)) is not None]
        self._before = {pid for handle in self._handles for pid in self._holders(handle)}
        self._own: set[int] = set()
        self._is_own_seen = False
        self._shares: list[float] = []
        self._looked, self._since = 0.0, _microseconds()

    def begin(self) -> None:
        """Count from now on."""
        self._shares, self._since = [], _microseconds()

    def look(self, pid: int) -> None:
        """Note what others do, at most once a second.

        Args:
            pid: Process id of the worker, the root of its own processes.
        """
        if not self._handles or time.monotonic() - self._looked < SECONDS_BETWEEN_LOOKS:
            return
        self._looked, since, self._since = time.monotonic(), self._since, _microseconds()
        self._shares.append(max(self._others(handle, pid, since) for handle in self._handles))

    def other_share(self) -> float:
        """Mean share of the busiest GPU's time that others used, from 0."""
        return sum(self._shares) / len(self._shares) if self._shares else 0.0

    def _others(self, handle: Any, pid: int, since: int) -> float:
        busy = self._busy(handle, since)
        if busy is None:
            busy = dict.fromkeys(self._holders(handle), 1.0)
        if any(user not in self._own for user in busy):
            self._own |= _tree(pid)
        self._is_own_seen |= not self._own.isdisjoint(busy)
        if not self._is_own_seen:
            return sum(share for user, share in busy.items() if user in self._before)
        return sum(share for user, share in busy.items() if user not in self._own)

    def _busy(self, handle: Any, since: int) -> Mapping[int, float] | None:
        """Share of the GPU's time by process id; None where the driver does not tell."""
        nvml = self._nvml
        try:
            samples = nvml.nvmlDeviceGetProcessUtilization(handle, since)
        except nvml.NVMLError as error:
            nobody = error.value in (nvml.NVML_SUCCESS, nvml.NVML_ERROR_NOT_FOUND)
            return {} if nobody else None
        return {sample.pid: sample.smUtil / 100 for sample in samples if sample.timeStamp > since}

    def _holders(self, handle: Any) -> set[int]:
        """Process ids that hold the GPU for computing."""
        nvml = self._nvml
        try:
            return {process.pid for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)}
        except nvml.NVMLError:
            return set()


def gpus_of(device: str, environment: Mapping[str, str]) -> list[str]:
    """The GPUs of a run, as `GpuWatch` takes them.

    Args:
        device: The run's: cpu, cuda or cuda:N.
        environment: Its environment; CUDA_VISIBLE_DEVICES names the GPUs that Ray has given to a trial.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return []
    visible = [word.strip() for word in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if word.strip()]
    if not visible:
        return [number or "0"]
    return [visible[int(number)]] if number and int(number) < len(visible) else visible


@functools.cache
def running_nvml() -> Any:
    """NVML, ready for questions; None where its library or an NVIDIA driver is missing."""
    try:
        return start_nvml()
    except NvmlMissingError:
        return None


def _handle(nvml: Any, gpu: str) -> Any:
    """NVML's name of a GPU; None where it knows no such GPU."""
    if nvml is None:
        return None
    try:
        return nvml.nvmlDeviceGetHandleByIndex(int(gpu)) if gpu.isdecimal() else nvml.nvmlDeviceGetHandleByUUID(gpu)
    except nvml.NVMLError:
        return None


def _tree(pid: int) -> set[int]:
    try:
        return {pid, *(child.pid for child in descendants(psutil.Process(pid)))}
    except psutil.Error:
        return {pid}


def _microseconds() -> int:
    """The driver's clock."""
    return int(time.time() * 1e6)
