"""A worker that follows the contract of docs/design.md without training: results are a formula of the settings.

FAKE_SECONDS: length of a run. FAKE_FAULTS: JSON, what goes wrong by "knob=value". Timings count as clean whatever else
the machine does, unless a fault says contended.
"""

import datetime
import json
import math
import os
import resource
import signal
import sys
import time
from pathlib import Path

from timellm.contract.job import Job

_TIMES = (
    "seconds_per_epoch",
    "seconds_per_epoch_low",
    "seconds_per_epoch_high",
    "samples_per_second",
    "validation_seconds",
    "peak_memory_gib",
)
_LACKING = {"time": ("val_mse", "val_mae"), "error": _TIMES}
"""What a run does not measure, by its clock."""

TRAIN_WINDOWS = 100_000
VALIDATION_WINDOWS = 10_000


def seconds_per_sample(config: dict) -> float:
    """A cost that falls with precision, prefix reuse and batch size, and grows with layers."""
    cost = 0.01 * config["llm_layers"] / 6
    cost *= {"fp32": 1.0, "bf16": 0.5, "fp16": 0.5}[config["precision"]]
    cost *= 0.6 if config["prompt_prefix"] == "reuse" else 1.0
    return cost * (1 + 8 / config["batch_size"])


def epoch(config: dict) -> float:
    """Seconds of a pass over the training windows."""
    return seconds_per_sample(config) * TRAIN_WINDOWS


def mse(config: dict) -> float:
    """An error that falls with layers, and grows with the batch and a rough number format."""
    return (
        0.4
        + 0.02 / config["llm_layers"]
        + 0.01 * math.log2(config["batch_size"] * config["accumulation_steps"])
        + (0.002 if config["precision"] == "bf16" else 0.0)
        + (config["seed"] % 7) * 1e-4
    )


def result(config: dict, state: str = "complete", error: str | None = None, clock: str = "together") -> dict:
    """What a real worker would measure."""
    seconds = epoch(config)
    values = {
        "val_mse": mse(config),
        "val_mae": mse(config) ** 0.5,
        "seconds_per_epoch": seconds,
        "seconds_per_epoch_low": 0.99 * seconds,
        "seconds_per_epoch_high": 1.01 * seconds,
        "is_projected": config["train_samples"] is not None,
        "samples_per_second": TRAIN_WINDOWS / seconds,
        "startup_seconds": 0.1,
        "compile_seconds": 0.0,
        "validation_seconds": 0.2 * seconds * VALIDATION_WINDOWS / TRAIN_WINDOWS,
        "peak_memory_gib": 0.1 + 0.01 * config["batch_size"],
        "epochs": 0.1,
        "train_samples": config["train_samples"] or TRAIN_WINDOWS,
        "val_samples": config["val_samples"] or VALIDATION_WINDOWS,
        "trainable_parameters": 1000,
        "total_parameters": 2000,
    }
    for name in _LACKING.get(clock, ()):
        values[name] = None
    if state != "complete":
        values = dict.fromkeys(values)
    return {
        **values,
        "state": state,
        "error": error,
        "timing_quality": "clean",
        "seed": config["seed"],
        "total_seconds": float(os.environ.get("FAKE_SECONDS", "0.2")),
        "started_at": datetime.datetime.now(datetime.UTC).isoformat(),
    }


def fault(config: dict, clock: str) -> str | None:
    """What shall go wrong in this run; the training of an error is left alone unless the condition names its clock."""
    faults = json.loads(os.environ.get("FAKE_FAULTS", "{}"))
    config = {**config, "clock": clock}
    for condition, what in faults.items():
        if clock == "error" and "clock=" not in condition:
            continue
        if all(str(config[name]) == value for name, value in (pair.split("=") for pair in condition.split(","))):
            return what
    return None


def main() -> int:
    """Behave like a worker."""
    job = Job.from_json(Path(sys.argv[1]).read_text())
    folder, config = Path(job.run_dir), job.config
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.append(1))

    def end(values: dict, status: int) -> int:
        (folder / "result.json").write_text(json.dumps(values))
        return status

    with (folder / "events.jsonl").open("a", buffering=1) as events:

        def emit(**event) -> None:
            events.write(json.dumps(event) + "\n")

        emit(event="started", pid=os.getpid())
        what = fault(config, job.clock)
        print(f"threads {os.environ.get('OMP_NUM_THREADS')}, fault {what}")
        if what == "sigkill":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "crash":
            print("RuntimeError: the model is broken")
            os._exit(3)
        if what == "disk full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
            (folder / "checkpoint.safetensors").write_bytes(b"0" * 1_000_000)
        if what == "bad input":
            message = "seq_len must fit the split."
            print(message)
            return end(result(config, "failed", message), 2)
        if what == "out of memory":
            return end({**result(config, "out_of_memory", "Memory ended."), "peak_memory_gib": 99.0}, 1)
        if what == "contended" or (what == "contended once" and folder.name != "retimed"):
            measured = result(config, clock=job.clock)
            slower = {"timing_quality": "contended", "seconds_per_epoch": 1.5 * measured["seconds_per_epoch"]}
            return end({**measured, **slower}, 0)
        if what == "diverged":
            return end(result(config, "diverged", "The loss must stay finite."), 1)
        emit(event="training", startup_seconds=0.1)
        for rung in job.rungs:
            time.sleep(0.3)
            emit(event="validation", samples=rung, val_mse=mse(config), val_mae=0.5, seconds_per_epoch=epoch(config))
        length = 1e9 if what == "hang" else float(os.environ.get("FAKE_SECONDS", "0.2"))
        ends = time.time() + length
        while time.time() < ends:
            if stopped and what != "hang":
                return end(result(config, "interrupted", "The run was told to stop."), 130)
            time.sleep(0.02)
        emit(event="validation", samples=64, val_mse=mse(config), val_mae=0.5, seconds_per_epoch=epoch(config))
        emit(event="done", state="complete")
    return end(result(config, clock=job.clock), 0)


if __name__ == "__main__":
    sys.exit(main())
