"""What a run does on a GPU, seen with made-up ones."""

import os
import sys
from types import SimpleNamespace

import pytest
import torch

from search.setup.hardware import usable_features
from search.setup.resources import plan_resources
from tests.timellm.test_training_monitor import fake_nvml
from tests.timellm.tiny_runs import CPU, options, set_up, tiny_config
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.machine import environment
from timellm.machine.environment import choose_device, unusable_gpu, use_tf32
from timellm.machine.gpu_failure import gpu_failure
from timellm.machine.memory import MemoryWatch
from timellm.measure import timing
from timellm.measure.timing import StepClock, warmup_steps
from timellm.run import evaluate as evaluation
from timellm.run import training as module
from timellm.run.stepping import Stepper
from timellm.run.training import TrainingRun


@pytest.fixture
def calls(monkeypatch):
    """What torch is asked to do with two GPUs that are not there; they emulate bf16."""
    made: list[tuple] = []
    fakes = {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "init": lambda: made.append(("init",)),
        "set_device": lambda device: made.append(("set_device", device)),
        "is_bf16_supported": lambda including_emulation=True: including_emulation,
        "get_device_name": lambda device: "Tesla T4",
        "get_device_capability": lambda: (7, 5),
        "reset_peak_memory_stats": lambda device: made.append(("reset", device)),
        "max_memory_allocated": lambda device: 0,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return made


@pytest.mark.parametrize(("device", "index"), [("cuda:1", 1), ("cuda", 0), ("auto", 0)])
def test_the_gpu_of_a_run_becomes_the_current_one_before_anything_is_put_there(calls, device, index):
    assert choose_device(RunConfig(device=device)).type == "cuda"
    assert calls == [("init",), ("set_device", index)]


def test_a_gpu_that_is_not_there_is_refused(calls):
    with pytest.raises(InputError, match=r"must be below cuda:2, the GPUs that are there, got cuda:2"):
        choose_device(RunConfig(device="cuda:2"))


def test_cuda_has_started_before_its_peak_of_memory_is_reset(calls):
    with MemoryWatch(torch.device("cuda")):
        assert calls[:2] == [("init",), ("reset", torch.device("cuda"))]


@pytest.mark.parametrize(("precision", "wanted"), [("fp32", False), ("fp16", False), ("tf32", True)])
def test_fp32_is_not_rounded_to_tf32_on_a_gpu(calls, monkeypatch, precision, wanted):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    use_tf32(not wanted)
    choose_device(RunConfig(device="cuda", precision=precision))
    assert torch.backends.cudnn.allow_tf32 is wanted
    assert torch.backends.cuda.matmul.allow_tf32 is wanted
    use_tf32(False)


@pytest.mark.parametrize("precision", ["bf16", "tf32"])
def test_a_gpu_that_only_emulates_bf16_does_not_count_as_having_it(calls, precision):
    with pytest.raises(InputError, match=rf"{precision} is not supported by this GPU \(Tesla T4\)"):
        choose_device(RunConfig(device="cuda", precision=precision))
    assert not {"bf16", "tf32"} & set(usable_features("cuda", {}))


def test_a_driver_too_old_for_the_wheel_is_said(monkeypatch):
    nvml = fake_nvml(nvmlSystemGetDriverVersion=lambda: "535.104", nvmlDeviceGetCount=lambda: 1)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.warns(UserWarning, match=r"driver \(535.104\) must be new enough for CUDA 13.0, .*on the CPU"):
        assert choose_device(RunConfig()) == CPU
    with pytest.raises(InputError, match=r"needs a CUDA GPU, and torch sees none. The NVIDIA driver \(535.104\)"):
        choose_device(RunConfig(device="cuda"))
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "was built for CPUs" in unusable_gpu()
    monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", "")  # GPUs that are hidden are not to be used
    assert unusable_gpu() is None


def test_without_a_driver_nothing_is_said():
    assert environment.nvidia_driver() is None or unusable_gpu() is None or "driver" in unusable_gpu()


def test_a_gpu_has_ten_steps_of_warm_up_at_least():
    gpu = torch.device("cuda")
    assert [warmup_steps(RunConfig(batch_size=size), gpu) for size in (32, 256)] == [10, 10]
    assert warmup_steps(RunConfig(warmup_steps=20), gpu) == 20
    assert warmup_steps(RunConfig(warmup_steps=0), gpu) == 0
    assert warmup_steps(RunConfig(), CPU) == 2


class FakeEvents:
    """CUDA events whose GPU works on each step as long as it is told, and a clock of the process."""

    def __init__(self, monkeypatch):
        self.now, self.gpu = 0.0, 0.0
        monkeypatch.setattr(timing, "synchronize", lambda device: None)
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: _Event(self))


class _Event:
    def __init__(self, clock):
        self._clock = clock

    def record(self):
        self.at = self._clock.gpu

    def elapsed_time(self, later):
        return 1000 * (later.at - self.at)


def test_a_gpu_tells_steps_apart_that_are_read_together(monkeypatch):
    clock, fake = StepClock(torch.device("cuda"), warmup_steps=1, steps_per_reading=16), FakeEvents(monkeypatch)
    clock.resume()
    for seconds in (5.0, 1.0, 2.0, 3.0):
        fake.gpu += seconds
        fake.now += 1.1 * seconds
        clock.step_done()
    clock.pause()
    assert clock.warmup_seconds == pytest.approx([5.5])
    assert clock.seconds == pytest.approx([1.1, 2.2, 3.3])
    assert clock.counts == [1, 1, 1]
    assert clock.per_step().high < float("inf")


def test_the_drivers_library_is_loaded_before_the_first_step(tmp_path, monkeypatch):
    opened: list[int] = []

    class Run(TrainingRun):
        steps = 0

        def between_steps(self, step, samples, loss):
            self.steps = step
            super().between_steps(step, samples, loss)

    run = Run(tiny_config(tmp_path, train_samples=32, val_samples=8), options(tmp_path))
    monkeypatch.setattr(module.DeviceMonitor, "open", lambda self: opened.append(run.steps))
    run.run()
    assert opened[0] == 0


def test_a_slice_of_a_gpu_is_watched_by_its_own_name(monkeypatch):
    from timellm.machine.monitor import handle_of

    nvml = fake_nvml()

    def by_uuid(uuid):
        if uuid.startswith("GPU-"):
            raise nvml.NVMLError("Not Found")
        return uuid

    assert handle_of(SimpleNamespace(**{**vars(nvml), "nvmlDeviceGetHandleByUUID": by_uuid}), "0123") == "MIG-0123"


def test_compiling_the_validation_is_not_counted_as_validation(tmp_path, monkeypatch):
    config, now, calls = tiny_config(tmp_path, train_samples=32, val_samples=16), [0.0], []
    prepared, _, _ = set_up(config)
    forward = prepared.model.forward

    def first_is_slow(*given):
        now[0] += 0.1 if calls else 3.1
        calls.append(1)
        return forward(*given)

    monkeypatch.setattr(prepared.model, "forward", first_is_slow)
    monkeypatch.setattr(evaluation.time, "perf_counter", lambda: now[0])
    windows = prepared.windows.validation
    scores = evaluation.evaluate(
        prepared.model, prepared.validation, windows, 8, CPU, shares_prototypes=False, warms_up=True
    )
    assert len(calls) == 3
    assert (scores.seconds, scores.warmup_seconds) == (pytest.approx(0.2), pytest.approx(3.1))


def test_an_optimizer_on_the_cpu_has_every_core():
    found = plan_resources(
        cores=16, gpus=1, device_memory_gib=80.0, max_concurrent=None, gpus_per_trial=None, max_memory_gib=None
    )
    assert found.threads(RunConfig(offload_optimizer="cpu")) == 16
    assert found.threads(RunConfig(offload_optimizer="none", num_workers=2)) == 3


def test_trials_that_share_a_gpu_share_its_memory():
    found = plan_resources(
        cores=16, gpus=1, device_memory_gib=80.0, max_concurrent=None, gpus_per_trial=0.5, max_memory_gib=None
    )
    assert (found.max_concurrent, found.max_memory_gib) == (2, 40.0)


@pytest.mark.parametrize(
    ("text", "state", "remedy"),
    [
        ("CUDA error: out of memory\nmore", "out_of_memory", "out of memory"),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate", "out_of_memory", "ALLOC_FAILED"),
        ("CUDA error: no kernel image is available for execution on the device", "failed", "Install a wheel"),
        ("CUDA error: device-side assert triggered", "failed", "CUDA_LAUNCH_BLOCKING=1"),
        ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", "failed", "--attention eager"),
    ],
)
def test_an_error_of_cuda_ends_a_run_with_a_remedy(tmp_path, monkeypatch, text, state, remedy):
    def fail(*_):
        raise RuntimeError(text)

    monkeypatch.setattr(Stepper, "train", fail)
    result = TrainingRun(tiny_config(tmp_path), options(tmp_path)).run()
    assert result.state == state
    assert remedy in result.error
    assert "\n" not in result.error


def test_other_errors_are_no_failure_of_a_gpu():
    assert gpu_failure(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
