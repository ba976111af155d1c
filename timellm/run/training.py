"""One whole training run: prepare, train, validate, test, measure."""

import json
import os
import time

import psutil
import torch

from timellm.contract.columns import State
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError, first_line
from timellm.contract.job import EventKind
from timellm.contract.layout import TrialFolder
from timellm.contract.result import RunResult
from timellm.contract.words import duration_words, utc
from timellm.data.naive import naive_errors
from timellm.machine.environment import choose_device, seed_everything, synchronize, unusable_gpu
from timellm.machine.gpu_failure import gpu_failure
from timellm.machine.memory import MemoryWatch, is_out_of_memory
from timellm.machine.monitor import DeviceMonitor
from timellm.machine.process import process_rank, world_size
from timellm.measure.profiling import StepProfiler
from timellm.measure.timing import warmup_steps
from timellm.model.timellm import DTYPES
from timellm.optimize.deepspeed_config import checkpointing_note, deepspeed_notes
from timellm.optimize.engine import Engine, build_engine
from timellm.prompts.cost import WORTH_SAYING_SECONDS
from timellm.run.batches import starvation_note
from timellm.run.checkpoint import load_checkpoint
from timellm.run.clocks.error_alone import ErrorTraining
from timellm.run.clocks.options import Event, RunOptions
from timellm.run.clocks.running import Running
from timellm.run.clocks.time_alone import time_steps, time_validation
from timellm.run.clocks.time_report import TimeReport
from timellm.run.clocks.together import WholeTraining
from timellm.run.errors import OUT_OF_MEMORY_REMEDIES, Diverged, Interrupted
from timellm.run.evaluate import Scores
from timellm.run.kernels import attention_kernel
from timellm.run.preparation import Preparation, prepare
from timellm.run.stepping import Stepper


class TrainingRun:
    """Trains as a `RunConfig` says and reports a `RunResult`, whatever happens.

    Args:
        config: The run's settings.
        options: How it is watched.
    """

    def __init__(self, config: RunConfig, options: RunOptions) -> None:
        self.config, self.options = config, options
        self._began = psutil.Process().create_time()
        self.result = RunResult(seed=config.seed, started_at=utc(self._began))
        self._other_peaks_gib = 0.0
        self._monitor: DeviceMonitor | None = None
        self._times: TimeReport | None = None
        self._epoch_windows = 1
        self._engine: Engine | None = None
        self._checkpoint = options.checkpoint or TrialFolder(options.folder).checkpoint
        self._untimed_steps = config.untimed_steps

    def run(self) -> RunResult:
        """Train, and turn every way to fail into a state; only wrong input is raised.

        Raises:
            InputError: For settings, data or a language model that do not fit together.
        """
        if self._is_error_alone and self.config.train_samples is None:
            raise InputError(
                "A run that measures its error alone trains on train_samples windows, got all of them. "
                "Measure time and error together, or name train_samples."
            )
        device = choose_device(self.config)
        if self.config.compile_mode != "off":
            torch.compiler.reset()  # code of earlier runs counts towards a limit, beyond which nothing is compiled
        self._monitor = DeviceMonitor(device)
        self._untimed_steps = warmup_steps(self.config, device)
        limit_gib = None if self._is_error_alone else self.options.max_memory_gib
        with MemoryWatch(device, limit_gib, self._exceeded) as watch:
            try:
                self._train(device, watch)
                self.result.state = State.COMPLETE
            except Interrupted:
                self.result.state, self.result.error = State.INTERRUPTED, "The run was told to stop."
            except Diverged as error:
                self.result.state, self.result.error = State.DIVERGED, str(error)
            except (MemoryError, OSError, RuntimeError) as error:
                self._end_with(error, watch)
            finally:
                if not self._is_error_alone:
                    self.result.peak_memory_gib = round(max(watch.peak_gib, self._other_peaks_gib), 4)
                    self.result.total_seconds = round(self._now(), 3)
        self.options.on_event({"event": EventKind.DONE, "state": self.result.state})
        return self.result

    def _end_with(self, error: Exception, watch: MemoryWatch) -> None:
        """Take the state from an error of memory or of a GPU; any other is raised again."""
        if is_out_of_memory(error):
            self._end_without_memory(first_line(error, "Memory ended."), watch.peak_gib)
            return
        failure = gpu_failure(error)
        if failure is None:
            raise error
        self.result.state, self.result.error = failure
        if self.result.state == State.OUT_OF_MEMORY:
            self._end_without_memory(failure[1], watch.peak_gib)

    def _end_without_memory(self, message: str, peak_gib: float) -> None:
        self.result.state = State.OUT_OF_MEMORY
        self.result.error = f"{message} The peak was {peak_gib:.2f} GiB. {OUT_OF_MEMORY_REMEDIES}"

    def _train(self, device: torch.device, watch: MemoryWatch) -> None:
        config, options = self.config, self.options
        global_batch = config.global_batch * world_size()
        steps_ready = 0 if self._is_error_alone else self._untimed_steps + options.min_timed_steps
        prepared = prepare(
            config,
            device,
            steps_ready * global_batch,
            prompt_memory_gib=options.prompt_memory_gib if self._is_error_alone else None,
            order_seed=options.order_seed,
        )
        if options.init_from is not None:
            load_checkpoint(options.init_from, prepared.model)
        steps = prepared.windows.steps(global_batch)
        engine = build_engine(config, prepared.model, device, steps)
        self._engine = engine
        self._epoch_windows = prepared.windows.epoch_windows
        if engine.rank:
            seed_everything(config.seed + engine.rank)  # each process has dropout of its own
        self._describe(prepared, engine, device)
        if engine.settings is not None:
            TrialFolder(options.folder).deepspeed_config.write_text(json.dumps(engine.settings, indent=2) + "\n")
        stepper = Stepper(config, prepared, engine, device, self.between_steps)
        if options.is_profiled and engine.rank == 0:
            stepper.profiler = StepProfiler(options.folder, device, self._untimed_steps, options.on_event)
        if self._monitor is not None and not self._is_error_alone:
            self._monitor.open()
        synchronize(device)
        startup_seconds = round(self._now() - engine.compile_seconds, 3)
        options.on_event({"event": EventKind.TRAINING, "startup_seconds": startup_seconds, "steps": steps})
        running = Running(config, prepared, engine, stepper, device, self._stop_if_told)
        if self._is_error_alone:
            self._measure_error(running)
            return
        self.result.startup_seconds = startup_seconds
        times = self._times = TimeReport(running)
        whole = WholeTraining(
            running, options, self._checkpoint, self.result, lambda scores: self._tell(scores, running)
        )
        try:
            if options.clock == "time":
                self._measure_time(running, times)
            else:
                whole.run()
        finally:
            times.write(self.result)
            self._report_device()
            self._note_starvation(stepper)
            if stepper.static.problem is not None:
                self.result.notes.append(stepper.static.problem)
            self._note_tokenising(prepared)
        if config.train_samples is None and options.clock == "together":
            whole.test()
        self._other_peaks_gib = engine.largest(watch.peak_gib, device)

    @property
    def _is_error_alone(self) -> bool:
        """Whether the run measures no time and no memory."""
        return self.options.clock == "error"

    def _measure_time(self, running: Running, times: TimeReport) -> None:
        """Steady steps and validation batches of the settings as they are; no error."""
        assert self._monitor is not None
        least, seconds = self.options.min_timed_steps, self.options.max_timing_seconds
        time_steps(running, least, seconds, self._monitor.start)
        scores, times.validation_seconds = time_validation(running)
        times.validations.append(scores)

    def _measure_error(self, running: Running) -> None:
        """One training on train_samples windows; no time."""
        result = self.result

        def tell(scores: Scores) -> None:
            result.val_mse, result.val_mae, result.val_samples = scores.mse, scores.mae, scores.windows
            self._tell(scores, running)

        result.is_projected = True
        training = ErrorTraining(running, self.options.rungs, tell)
        try:
            training.run()
        finally:
            result.epochs = round(running.stepper.samples / running.prepared.windows.epoch_windows, 6)
            result.curve = training.curve
            self._close_memory(running.prepared)
        result.examples = training.examples

    def _close_memory(self, prepared: Preparation) -> None:
        """Bring the prompts that the run computed to the disk, and report how many it found there."""
        memory = prepared.memory
        if memory is None:
            return
        memory.close()
        counts = {"found": memory.found, "computed": memory.computed, "seconds": round(memory.seconds, 3)}
        self.result.prompt_memory = counts
        if memory.problem is not None:
            self.result.notes.append(f"The prompt memory keeps no further prompts: {memory.problem}.")

    def _tell(self, scores: Scores, running: Running) -> None:
        """Report a validation."""
        if self._times is not None:
            self._times.validations.append(scores)
            self._times.write(self.result)
        self.options.on_event(
            {
                "event": EventKind.VALIDATION,
                "samples": running.stepper.samples,
                "step": running.stepper.steps_done,
                "epoch": round(running.stepper.samples / running.prepared.windows.epoch_windows, 6),
                "val_mse": scores.mse,
                "val_mae": scores.mae,
                "seconds_per_epoch": self.result.seconds_per_epoch,
            }
        )

    def _report_device(self) -> None:
        """End the sampling of the device, and report what it saw."""
        assert self._monitor is not None
        self._monitor.stop()
        self.result.notes += self._monitor.notes
        self.result.add(self._monitor.summary())

    def _note_starvation(self, stepper: Stepper) -> None:
        waited = self.result.data_wait_percent = stepper.data_wait_percent()
        if waited is not None and (note := starvation_note(self.config, waited)):
            self.result.notes.append(note)

    def _note_tokenising(self, prepared: Preparation) -> None:
        made = sum(part.made for part in prepared.tokenised)
        seconds = sum(part.seconds for part in prepared.tokenised)
        if seconds >= WORTH_SAYING_SECONDS:
            self.result.notes.append(
                f"Between the steps {made:,} prompts were tokenised in {duration_words(seconds)}, which total_seconds "
                "holds and no other time; later runs with the same data and prompt find them."
            )

    def _describe(self, prepared: Preparation, engine: Engine, device: torch.device) -> None:
        result = self.result
        result.trainable_parameters, result.total_parameters = prepared.model.parameter_counts()
        result.train_samples = self.config.train_samples or prepared.windows.epoch_windows
        result.backbone = prepared.backbone_label
        data = prepared.data
        result.naive_mse = naive_errors(data.validation, prepared.windows.validation, data.seasonal_frequency)
        result.device = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        result.notes = [*data.notes, *deepspeed_notes(self.config)]
        if self._is_error_alone:
            return
        first = prepared.train.cut_here(prepared.windows.passes[0][:2])
        result.attention_kernel = attention_kernel(prepared.model, first, self.config.attention)
        own = DTYPES[self.config.precision] == prepared.model.product_dtype
        result.matmul_dtype = self.config.precision if own else "fp32"
        if self.config.device == "auto" and (problem := unusable_gpu()):
            result.notes.append(problem)
        if result.matmul_dtype != self.config.precision:
            result.notes.append(
                f"Operands were rounded to {self.config.precision} and multiplied in {result.matmul_dtype}, "
                "which this CPU does faster."
            )
        if note := checkpointing_note(self.config, device):
            result.notes.append(note)
        if engine.world > 1:
            result.notes.append(
                f"Trained by {engine.world} processes; the global batch is {engine.world} times as big."
            )

    def between_steps(self, step: int, samples: int, loss: float | None) -> None:
        """Called after each step: ends a run that is told to stop, begins watching the device, reports a loss."""
        self._stop_if_told()
        is_watched = self._monitor is not None and not self._monitor.is_running and not self._is_error_alone
        if self._monitor is not None and is_watched and step >= self._untimed_steps:
            self._monitor.start()
        if loss is not None:
            event: Event = {"event": EventKind.PROGRESS, "step": step, "samples": samples, "train_loss": loss}
            if self._engine is not None:
                event |= {"learning_rate": self._engine.learning_rate, "epoch": round(samples / self._epoch_windows, 6)}
            self.options.on_event(event)

    def _stop_if_told(self) -> None:
        """The first of several processes alone stops; the others end with it."""
        if process_rank() == 0 and self.options.should_stop.is_set():
            raise Interrupted

    def _exceeded(self, gib: float) -> None:
        """End the process at once from the watching thread: the next allocation may take the machine down."""
        limit = self.options.max_memory_gib
        self.result.state, self.result.peak_memory_gib = State.OUT_OF_MEMORY, round(gib, 4)
        self.result.error = (
            f"The run must stay within {limit:.1f} GiB of memory, got {gib:.1f} GiB. {OUT_OF_MEMORY_REMEDIES}"
        )
        self.result.total_seconds = round(self._now(), 3)
        if self._monitor is not None:
            self.result.add(self._monitor.summary())
        self.result.write(TrialFolder(self.options.folder).result)
        self.options.on_event({"event": EventKind.DONE, "state": State.OUT_OF_MEMORY})
        os._exit(1)

    def _now(self) -> float:
        """Seconds since the process started."""
        return time.time() - self._began
