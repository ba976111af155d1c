"""What is sampled of the device during training."""

import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from tests.timellm.tiny_runs import options, tiny_config
from tests.waiting import wait_for
from timellm.machine import monitor as module
from timellm.machine.memory import GIB
from timellm.machine.monitor import FIGURES, DeviceMonitor
from timellm.machine.periodic import descendants
from timellm.run.training import TrainingRun

CPU = torch.device("cpu")
GPU = torch.device("cuda")


class NVMLError(Exception):
    """As the driver's library raises it."""


def fake_nvml(**changes: Any) -> Any:
    """The part of pynvml that is used, for a card that gives two different samples of each figure."""
    calls: dict[str, int] = {}

    def alternating(name: str, low: float, high: float) -> float:
        calls[name] = calls.get(name, 0) + 1
        return low if calls[name] % 2 else high

    functions = {
        "NVMLError": NVMLError,
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: calls.update(shutdown=1),
        "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
        "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=alternating("gpu", 80, 100)),
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(used=alternating("memory", GIB, 3 * GIB)),
        "nvmlDeviceGetPowerUsage": lambda _: alternating("power", 200_000, 300_000),
        "nvmlDeviceGetTemperature": lambda _, sensor: alternating("temperature", 50, 60),
        "calls": calls,
    }
    return SimpleNamespace(**{**functions, **changes})


def watch(monkeypatch: pytest.MonkeyPatch, nvml: Any, samples: int = 2) -> DeviceMonitor:
    """A monitor of a made-up GPU that has taken some samples."""
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="0123"))
    monitor = DeviceMonitor(GPU, seconds=1000)
    with monitor:
        for _ in range(samples):
            monitor.sample()
    return monitor


def test_a_gpu_is_sampled_by_its_drivers_library(monkeypatch):
    nvml = fake_nvml()
    monitor = watch(monkeypatch, nvml)
    summary = monitor.summary()
    assert monitor.notes == []
    assert (summary["mean_device_utilisation_percent"], summary["max_device_utilisation_percent"]) == (90, 100)
    assert (summary["mean_device_memory_gib"], summary["max_device_memory_gib"]) == (2, 3)
    assert (summary["mean_device_power_watts"], summary["max_device_power_watts"]) == (250, 300)
    assert (summary["mean_device_temperature_celsius"], summary["max_device_temperature_celsius"]) == (55, 60)
    assert nvml.calls["shutdown"] == 1


def test_a_figure_that_a_card_does_not_give_is_missing(monkeypatch):
    def refuse(_: object) -> float:
        raise NVMLError("Not Supported")

    summary = watch(monkeypatch, fake_nvml(nvmlDeviceGetPowerUsage=refuse)).summary()
    assert not any("power" in name for name in summary)
    assert summary["max_device_temperature_celsius"] == 60


def test_a_gpu_without_the_drivers_library_is_a_note(monkeypatch):
    def refuse() -> None:
        raise NVMLError("NVML Shared Library Not Found")

    for nvml, reason in ((None, "nvidia-ml-py is not installed"), (fake_nvml(nvmlInit=refuse), "Library Not Found")):
        monitor = watch(monkeypatch, nvml)
        assert len(monitor.notes) == 1
        assert reason in monitor.notes[0]
        assert set(monitor.summary()) == {
            f"{kind}_{name}" for kind in ("mean", "max") for name in ("cpu_utilisation_percent", "host_memory_gib")
        }


def test_a_cpu_is_the_process_itself_with_its_children():
    spin = "import time; end = time.process_time() + 0.4\nwhile time.process_time() < end: pass"
    with DeviceMonitor(CPU, seconds=1000) as monitor:
        subprocess.run([sys.executable, "-c", spin], check=True)
        monitor.sample()
        time.sleep(0.3)
        monitor.sample()
    summary = monitor.summary()
    assert set(summary) == {
        f"{kind}_{name}" for kind in ("mean", "max") for name in FIGURES if "power" not in name and "temp" not in name
    }
    assert summary["max_device_utilisation_percent"] == summary["max_cpu_utilisation_percent"] > 1
    assert summary["mean_cpu_utilisation_percent"] < summary["max_cpu_utilisation_percent"]
    assert 0.05 < summary["max_host_memory_gib"] < 64


def test_samples_come_by_themselves_and_what_is_short_gets_one(monkeypatch):
    taken = []
    monkeypatch.setattr(module.DeviceMonitor, "sample", lambda self: taken.append(1) is None)
    with DeviceMonitor(CPU, seconds=0.05):
        wait_for(lambda: len(taken) >= 2)
    monitor = DeviceMonitor(CPU)
    monkeypatch.undo()
    with monitor:
        pass
    assert monitor.summary()["max_host_memory_gib"] > 0


def test_children_and_theirs_are_found():
    grandchild = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", grandchild], stdin=subprocess.PIPE) as process:
        child, ends = psutil.Process(process.pid), time.monotonic() + 60
        while not child.children() and time.monotonic() < ends:
            time.sleep(0.05)
        known = set(psutil.Process().children(recursive=True))  # other tests may have left some
        assert {child, *child.children()} <= known
        assert len(child.children()) == 1
        assert set(descendants(psutil.Process())) == known
        process.communicate(b"\n", timeout=60)
    assert set(descendants(psutil.Process())) == set(psutil.Process().children(recursive=True))


def test_a_run_samples_behind_its_warm_up_and_reports_it(tmp_path, monkeypatch):
    started: list[int] = []
    start = DeviceMonitor.start
    monkeypatch.setattr(DeviceMonitor, "start", lambda self: (started.append(run.steps_seen), start(self))[1])

    class Run(TrainingRun):
        steps_seen = 0

        def between_steps(self, step: int, samples: int, loss: float | None) -> None:
            self.steps_seen = step
            super().between_steps(step, samples, loss)

    run = Run(tiny_config(tmp_path, train_samples=64, val_samples=8, warmup_steps=3), options(tmp_path))
    result = run.run()
    assert started == [3]
    assert 0 < result.mean_cpu_utilisation_percent <= result.max_cpu_utilisation_percent <= 100
    assert result.max_device_memory_gib == result.max_host_memory_gib > 0
    assert result.mean_device_power_watts is None
    assert not [thread for thread in threading.enumerate() if thread.name == "device-monitor"]
