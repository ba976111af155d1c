"""Times a run's steps and evaluation batches without training it."""

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from timellm.contract.config import RunConfig
from timellm.machine.environment import choose_device, synchronize
from timellm.machine.memory import GIB, MemoryWatch
from timellm.measure.profiling import PROFILED_STEPS, StepProfile, StepProfiler
from timellm.measure.timing import StepClock
from timellm.optimize.deepspeed_config import deepspeed_notes
from timellm.optimize.engine import build_engine
from timellm.run.evaluate import batch_that_fits, evaluate
from timellm.run.preparation import prepare
from timellm.run.stepping import STEPS_PER_GPU_READING, Stepper

MOST_EVALUATION_BATCHES = 20
LEAST_EVALUATION_BATCHES = 4
LEAST_ROUNDS = 2


@dataclass(frozen=True, kw_only=True)
class MeasurePlan:
    """How much of a run is timed.

    Attributes:
        batches: Training batches to time.
        warmup_batches: Training batches before them.
        rounds: Parts that the timed batches are taken in; between two parts, other settings are timed.
        profile_folder: Record some steps after the timed ones and leave their profile and trace here; None records
            none.
    """

    batches: int
    warmup_batches: int
    rounds: int = 1
    profile_folder: Path | None = None

    @classmethod
    def of(
        cls, batches: int, warmup_batches: int, settings: list[RunConfig], profile_folder: Path | None = None
    ) -> "MeasurePlan":
        """One part for one setting; for several, as many parts as each has steps, about, so that both are many."""
        if len(settings) == 1:
            return cls(batches=batches, warmup_batches=warmup_batches, profile_folder=profile_folder)
        fewest = min(math.ceil(batches / config.accumulation_steps) for config in settings)
        rounds = max(LEAST_ROUNDS, round(math.sqrt(fewest)))
        return cls(batches=batches, warmup_batches=warmup_batches, rounds=rounds, profile_folder=profile_folder)

    def of_setting(self, number: int) -> "MeasurePlan":
        """The same with a profile folder of the setting's own, by its number from 1."""
        if self.profile_folder is None:
            return self
        return dataclasses.replace(self, profile_folder=self.profile_folder / f"setting-{number}")

    def steps(self, config: RunConfig) -> int:
        """Optimizer steps to time: whole ones, at least one a round."""
        return max(self.rounds, math.ceil(self.batches / config.accumulation_steps))

    def evaluation_batches(self) -> int:
        """Validation batches to run; the first is timed apart."""
        return min(MOST_EVALUATION_BATCHES, max(LEAST_EVALUATION_BATCHES, self.batches // 5))


@dataclass(frozen=True, kw_only=True)
class Round:
    """Steady optimizer steps of one part.

    Attributes:
        seconds: Duration of each reading.
        counts: Steps that each reading covers.
    """

    seconds: list[float]
    counts: list[int]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured of one run's settings.

    Attributes:
        rounds: Its training steps; with a prompt store, those that find their prompts in it.
        filling_rounds: With a prompt store, the steps that fill it; none without.
        evaluation_start_seconds: What the first evaluation batch took above the others.
        evaluation_seconds: Durations of the evaluation batches after the first.
        evaluation_batch: Windows of an evaluation batch (default: as the settings say).
        epoch_windows: Training windows of the data set.
        validation_windows: Validation windows of the data set.
        test_windows: Test windows of the data set.
        startup_seconds: From the start of the process to the first step, compilation of extensions left out.
        compile_seconds: Compilation of extensions, and with torch.compile what warm-up steps took above steady ones.
        peak_memory_gib: Peak memory of the device: allocated on a GPU, resident on a CPU; a prompt store counts with
            the size that the run would give it.
        trainable_parameters: Parameters that the optimizer sees.
        total_parameters: All parameters, the word embeddings once.
        device: Name of the device.
        backbone: Language model, and whether its weights are random.
        notes: What a reader of the figures should know.
        profile: Of some steps after the timed ones, where it was asked for.
    """

    rounds: list[Round]
    filling_rounds: list[Round]
    evaluation_start_seconds: float
    evaluation_seconds: list[float]
    epoch_windows: int
    validation_windows: int
    test_windows: int
    startup_seconds: float
    compile_seconds: float
    peak_memory_gib: float
    trainable_parameters: int
    total_parameters: int
    device: str
    backbone: str
    notes: list[str]
    profile: StepProfile | None = None
    evaluation_batch: int | None = None


@dataclass(frozen=True)
class Failure:
    """Settings that could not be measured.

    Attributes:
        state: out_of_memory, diverged or failed.
        error: What went wrong and what to do, one line.
    """

    state: str
    error: str


class Measurement:
    """One run's settings, prepared as for training on the windows that the timing needs.

    Steps are taken by the run's own `Stepper`. The first step of a round is never timed: loader workers start in it
    and caches are cold. Only the prompts of the windows that are used are tokenised, so the preparation is shorter
    than a run's.

    Args:
        config: The run's settings.
        plan: How much is timed.

    Raises:
        InputError: If the data, the language model or the device do not fit the settings.
    """

    def __init__(self, config: RunConfig, plan: MeasurePlan) -> None:
        self._config, self._plan = config, plan
        self._evaluation_batch = config.evaluation_batch
        self._device = choose_device(config)
        self._warmup_steps = math.ceil(plan.warmup_batches / config.accumulation_steps)
        steps = self._warmup_steps + plan.steps(config) + plan.rounds
        steps += PROFILED_STEPS + 1 if plan.profile_folder else 0
        evaluated = plan.evaluation_batches() * config.evaluation_batch
        self._prepared = prepare(
            config.replace(train_samples=steps * config.global_batch, val_samples=evaluated), self._device, 1
        )
        self._engine = build_engine(config, self._prepared.model, self._device, steps)
        self._stepper = Stepper(
            config, self._prepared, self._engine, self._device, self._step_done, untimed_steps=self._warmup_steps
        )
        self._order = self._prepared.windows.passes[0]
        self._clock: StepClock | None = None
        self._rounds: list[Round] = []
        self._filling_rounds: list[Round] = []
        self._is_first = True

    def warm_up(self) -> None:
        """Take the steps before the timed ones."""
        if self._warmup_steps:
            self._stepper.train(self._next_windows(self._warmup_steps))

    def take_round(self) -> None:
        """Time the next part of the steps; with a prompt store twice, on windows that it has not seen and then has."""
        steps, rounds, done = self._plan.steps(self._config), self._plan.rounds, len(self._rounds)
        share = (done + 1) * steps // rounds - done * steps // rounds
        windows = self._next_windows(share + 1)
        if self._prepared.store is not None:
            self._filling_rounds.append(self._time_steps(windows))
        self._rounds.append(self._time_steps(windows))

    def finish(self, startup_seconds: float, watch: MemoryWatch) -> Measured:
        """Time the evaluation and report everything.

        Args:
            startup_seconds: From the start of the process to the end of the preparation.
            watch: Has read the memory of this process from its start.
        """
        start, seconds = self._time_evaluation()
        recorded = self._profile_steps()
        trained, total = self._prepared.model.parameter_counts()
        compiled = self._engine.compile_seconds
        if self._config.compile_mode != "off":
            compiled += self._stepper.warmup_excess(self._stepper.seconds_per_step()[0])
        data = self._prepared.data
        return Measured(
            rounds=self._rounds,
            filling_rounds=self._filling_rounds,
            evaluation_start_seconds=start,
            evaluation_seconds=seconds,
            evaluation_batch=self._evaluation_batch,
            epoch_windows=len(data.train),
            validation_windows=len(data.validation),
            test_windows=len(data.test),
            startup_seconds=startup_seconds - self._engine.compile_seconds,
            compile_seconds=compiled,
            peak_memory_gib=watch.peak_gib + self._absent_store_gib(),
            trainable_parameters=trained,
            total_parameters=total,
            device=torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else "cpu",
            backbone=self._prepared.backbone_label,
            notes=[*data.notes, *deepspeed_notes(self._config)],
            profile=recorded,
        )

    def _next_windows(self, steps: int) -> torch.Tensor:
        windows, self._order = self._order.tensor_split([steps * self._config.global_batch])
        return windows

    def _time_steps(self, windows: torch.Tensor) -> Round:
        readings = 1 if self._device.type == "cpu" else STEPS_PER_GPU_READING
        self._clock, self._is_first = StepClock(self._device, warmup_steps=0, steps_per_reading=readings), True
        self._stepper.train(windows)
        self._clock.pause()
        timed = Round(seconds=self._clock.seconds, counts=self._clock.counts)
        self._clock = None
        return timed

    def _step_done(self, step: int, samples: int, loss: float | None) -> None:
        if self._clock is None:
            return
        if self._is_first:
            self._is_first = False
            self._clock.resume()
        else:
            self._clock.step_done()

    def _profile_steps(self) -> StepProfile | None:
        if self._plan.profile_folder is None:
            return None
        profiler = self._stepper.profiler = StepProfiler(self._plan.profile_folder, self._device, skip=0)
        self._stepper.train(self._next_windows(PROFILED_STEPS + 1))
        return profiler.result

    def _absent_store_gib(self) -> float:
        """What a run's prompt store is larger than the one here, which holds the few prompts that are used."""
        store, train = self._prepared.store, self._prepared.data.train
        if store is None:
            return 0.0
        prompts = train.windows_per_channel if self._config.prompt_scope == "span" else len(train)
        used = min(prompts, self._config.train_samples or prompts)
        return max(0.0, used * store.share - store.kept) * store.bytes_per_prompt / GIB

    def _time_evaluation(self) -> tuple[float, list[float]]:
        """What the first batch of a pass took above the others, and the others' durations."""
        prepared = self._prepared
        chosen = prepared.windows.validation
        size = batch_that_fits(self._config, prepared.model, prepared.validation, chosen, self._device)
        windows = chosen.repeat(size // self._config.evaluation_batch)
        self._evaluation_batch = size
        self._evaluate(windows[:size], lambda: None)  # compiles and fills the allocator
        readings: list[float] = []

        def read() -> None:
            synchronize(self._device)
            readings.append(time.perf_counter())

        read()
        self._evaluate(windows, read)
        durations = np.diff(readings).tolist()
        if len(durations) > 2 and len(windows) % size:
            durations.pop()
        others = durations[1:] or durations
        return max(0.0, durations[0] - float(np.mean(others))), others

    def _evaluate(self, windows: torch.Tensor, between_batches: Callable[[], None]) -> None:
        evaluate(
            self._prepared.model,
            self._prepared.validation,
            windows,
            self._evaluation_batch,
            self._device,
            shares_prototypes=self._config.prompt_prefix != "recompute",
            between_batches=between_batches,
        )
