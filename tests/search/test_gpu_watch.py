"""The real NVML package with the driver's answers made up."""

import os
import time
from types import SimpleNamespace

import pynvml
import pytest

from timellm.machine import gpu_watch
from timellm.machine.contention import LoadWatch
from timellm.machine.gpu_watch import GpuWatch, gpus_of

WORKER, OTHER, LATE = os.getpid(), 2**30, 2**30 + 1


class Driver:
    """What the driver would say: who holds the GPU, and each one's share of its time in percent."""

    NVMLError = pynvml.NVMLError
    NVML_SUCCESS, NVML_ERROR_NOT_FOUND = pynvml.NVML_SUCCESS, pynvml.NVML_ERROR_NOT_FOUND

    def __init__(self):
        self.holders, self.busy, self.error = [], {}, None

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        if index > 0:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return index

    def nvmlDeviceGetComputeRunningProcesses(self, handle):  # noqa: N802
        return [SimpleNamespace(pid=pid) for pid in self.holders]

    def nvmlDeviceGetProcessUtilization(self, handle, since):  # noqa: N802
        if self.error or not self.busy:
            raise pynvml.NVMLError(self.error or pynvml.NVML_ERROR_NOT_FOUND)
        return [
            SimpleNamespace(pid=pid, smUtil=share, timeStamp=int(time.time() * 1e6) + 1)
            for pid, share in self.busy.items()
        ]


@pytest.fixture
def driver(monkeypatch):
    made = Driver()
    monkeypatch.setattr(gpu_watch, "running_nvml", lambda: made)
    monkeypatch.setattr(gpu_watch, "SECONDS_BETWEEN_LOOKS", 0.0)
    return made


def test_a_worker_alone_on_its_gpu_is_no_load(driver):
    watch = GpuWatch(["0"])
    driver.busy = {WORKER: 90}
    watch.look(WORKER)
    assert watch.other_share() == 0.0


def test_another_process_on_the_gpu_is_noticed(driver):
    watch = LoadWatch(["0"], spare_cores=10_000)
    driver.busy = {WORKER: 60, OTHER: 30}
    watch.look(WORKER)
    assert watch.quality(WORKER) == "contended"


def test_what_was_before_the_timed_part_is_forgotten(driver):
    watch = GpuWatch(["0"])
    driver.busy = {OTHER: 100}
    watch.look(WORKER)
    watch.begin()
    driver.busy = {WORKER: 100}
    watch.look(WORKER)
    assert watch.other_share() == 0.0


def test_a_process_that_only_holds_memory_is_no_load(driver):
    driver.holders = [OTHER]
    watch = GpuWatch(["0"])
    watch.look(WORKER)
    assert watch.other_share() == 0.0


def test_a_worker_behind_another_number_is_not_taken_for_another(driver):
    driver.holders = [OTHER]
    watch = GpuWatch(["0"])
    driver.busy = {LATE: 90}
    watch.look(WORKER)
    assert watch.other_share() == 0.0
    driver.busy = {LATE: 50, OTHER: 40}
    watch.look(WORKER)
    assert watch.other_share() == pytest.approx(0.2)


def test_where_shares_are_not_told_holders_count_as_busy(driver):
    driver.error = pynvml.NVML_ERROR_NOT_SUPPORTED
    watch = GpuWatch(["0"])
    driver.holders = [WORKER, OTHER]
    watch.look(WORKER)
    assert watch.other_share() == 1.0


def test_without_nvml_nothing_is_seen(monkeypatch):
    monkeypatch.setattr(gpu_watch, "running_nvml", lambda: None)
    watch = GpuWatch(["0"])
    watch.look(WORKER)
    assert watch.other_share() == 0.0


@pytest.mark.parametrize(
    ("device", "visible", "gpus"),
    [
        ("cpu", "0,1", []),
        ("cuda", "", ["0"]),
        ("cuda:1", "", ["1"]),
        ("cuda", "3", ["3"]),
        ("cuda", "GPU-a, GPU-b", ["GPU-a", "GPU-b"]),
        ("cuda:1", "4,7", ["7"]),
    ],
)
def test_the_gpus_of_a_run_are_those_it_sees(device, visible, gpus):
    assert gpus_of(device, {"CUDA_VISIBLE_DEVICES": visible}) == gpus
