"""What a training run reports; the field names are columns of the trials table."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timellm.contract.columns import State
from timellm.contract.files import write_atomically


@dataclass(kw_only=True)
class RunResult:
    """Measurements of one run; None where it did not come that far."""

    state: str = State.FAILED
    """How the run ended, one of `STATES`."""
    error: str | None = None
    """What went wrong and what to do, one line."""
    val_mse: float | None = None
    """Mean squared error of the best checkpoint on the validation windows, scaled units."""
    val_mae: float | None = None
    """Mean absolute error beside val_mse, scaled units."""
    test_mse: float | None = None
    """Mean squared error of the best checkpoint on every test window, scaled units."""
    test_mae: float | None = None
    """Mean absolute error beside test_mse, scaled units."""
    seconds_per_epoch: float | None = None
    """Wall clock of one pass over all training windows."""
    seconds_per_epoch_low: float | None = None
    """Lower end of the 95 % interval of what another process of these settings takes."""
    seconds_per_epoch_high: float | None = None
    """Upper end of that interval."""
    is_projected: bool | None = None
    """Whether seconds_per_epoch is projected from fewer windows."""
    seconds_per_epoch_with_validation: float | None = None
    """seconds_per_epoch plus an epoch's share of the validation passes."""
    seconds_per_step: float | None = None
    """Mean seconds of a steady optimizer step."""
    seconds_per_step_median: float | None = None
    """Median seconds of a steady optimizer step, a diagnostic."""
    seconds_per_batch: float | None = None
    """Mean seconds of a steady micro batch, its share of the optimizer step included."""
    samples_per_second: float | None = None
    """Training windows per second."""
    startup_seconds: float | None = None
    """From the start of the process to the first training step, compilation of extensions left out."""
    compile_seconds: float | None = None
    """Compilation: of extensions before the first step, and what warm-up steps took above steady ones."""
    validation_seconds: float | None = None
    """One pass over every validation window, projected where is_projected."""
    total_seconds: float | None = None
    """From the start of the process to the result."""
    peak_memory_gib: float | None = None
    """Peak memory of the device: allocated on a GPU, resident on a CPU."""
    data_wait_percent: float | None = None
    """Share of the steady steps' time in which the device waited for its batches, percent."""
    mean_device_utilisation_percent: float | None = None
    """Mean of the samples, about one a second after the first steps: time in which the GPU ran a kernel; on a CPU, the
    share of its cores that the run used."""
    max_device_utilisation_percent: float | None = None
    """Highest of those samples."""
    mean_device_memory_gib: float | None = None
    """Mean memory in use on the GPU, by anything; on a CPU, resident memory of the run."""
    max_device_memory_gib: float | None = None
    """Highest sample of it."""
    mean_device_power_watts: float | None = None
    """Mean power of the GPU; unknown on a CPU."""
    max_device_power_watts: float | None = None
    """Highest sample of it."""
    mean_device_temperature_celsius: float | None = None
    """Mean temperature of the GPU; unknown on a CPU."""
    max_device_temperature_celsius: float | None = None
    """Highest sample of it."""
    mean_cpu_utilisation_percent: float | None = None
    """Mean share of the cores it may use that the process and its loader workers used."""
    max_cpu_utilisation_percent: float | None = None
    """Highest sample of it."""
    mean_host_memory_gib: float | None = None
    """Mean resident memory of the process and its loader workers."""
    max_host_memory_gib: float | None = None
    """Highest sample of it."""
    epochs: float | None = None
    """Passes over the training windows that were done."""
    train_samples: int | None = None
    """Training windows of the run: all of the data set's, or the number it was limited to."""
    val_samples: int | None = None
    """Validation windows that val_mse is over."""
    timed_steps: int | None = None
    """Steady optimizer steps that the timing is based on."""
    trainable_parameters: int | None = None
    """Parameters that the optimizer sees."""
    total_parameters: int | None = None
    """All parameters, the word embeddings once."""
    seed: int | None = None
    """Seed of the run."""
    started_at: str | None = None
    """Start of the process, ISO 8601, UTC."""
    device: str | None = None
    """Name of the device."""
    backbone: str | None = None
    """Language model, and whether its weights are random."""
    attention_kernel: str | None = None
    """Attention kernel of the forward pass: eager, or what torch's fused attention takes on the device."""
    matmul_dtype: str | None = None
    """Type that the language model's matrix products are computed in."""
    naive_mse: dict[str, float] | None = None
    """Errors of forecasts that need no training, over the same validation windows."""
    curve: list[dict[str, Any]] | None = None
    """Of a run that measures its error alone: step, samples, val_mse and val_samples on the way and at the end."""
    examples: list[dict[str, Any]] | None = None
    """Of such a run: some validation windows with channel, history, truth, forecast and naive forecast, scaled."""
    prompt_memory: dict[str, float] | None = None
    """Of such a run: prompts found in the prompt memory, computed, and seconds that both and writing them took."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the figures should know."""

    def add(self, figures: Mapping[str, float]) -> None:
        """Set figures by their names."""
        for name, value in figures.items():
            setattr(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON types."""
        return dataclasses.asdict(self)

    def write(self, path: Path) -> None:
        """Replace the file at once, so that nobody reads half of it."""
        write_atomically(path, json.dumps(self.to_dict(), indent=2) + "\n")
