"""Optimizer steps over windows, and their clocks."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from timellm.contract.config import RunConfig
from timellm.measure.profiling import StepProfiler
from timellm.measure.timing import Estimate, StepClock, warmup_steps
from timellm.model.parts import part
from timellm.model.timellm import Prototypes
from timellm.optimize.engine import Engine, PlainEngine, keep_gradients
from timellm.optimize.loss_scale import MOST_SKIPPED
from timellm.run.batches import Batch, Groups, micro_batches
from timellm.run.errors import Diverged
from timellm.run.preparation import Preparation
from timellm.run.static_step import StaticStep

SECONDS_BETWEEN_REPORTS = 1.0
STEPS_PER_LOOK = 2
"""Readings after which an interval that was too wide is looked at again."""
STEPS_PER_GPU_READING = 16


class Stepper:
    """Trains on windows, one optimizer step per global batch.

    Args:
        config: The run's settings.
        prepared: Network and batches.
        engine: Turns losses into updates.
        device: Where it runs.
        between_steps: Called after each step with its number, the windows seen so far and, now and then, the loss;
            may raise to stop.
        untimed_steps: Steps at the start that the timing leaves out (default: as the run's settings say).

    Attributes:
        profiler: Records some of the steps; none of those is timed. None records none.
        prepared: Network and batches.
        engine: Turns losses into updates.
        clock: Times the steps.
        filling: Times those that fill a prompt store; without one it is `clock`.
        static: Takes the steps over batches of one shape.
    """

    profiler: StepProfiler | None = None

    def __init__(
        self,
        config: RunConfig,
        prepared: Preparation,
        engine: Engine,
        device: torch.device,
        between_steps: Callable[[int, int, float | None], None],
        *,
        untimed_steps: int | None = None,
    ) -> None:
        self._config, self.prepared, self.engine, self._device = config, prepared, engine, device
        self._between_steps = between_steps
        warmup = warmup_steps(config, device) if untimed_steps is None else untimed_steps
        per_reading = 1 if device.type == "cpu" else STEPS_PER_GPU_READING
        self.filling = StepClock(device, warmup, per_reading)
        self.clock = self.filling
        if prepared.store is not None:
            self.clock = StepClock(device, 0, per_reading)
        self.static = StaticStep(self.update, device)
        self._passes = 0
        self.steps_done = 0
        self.samples = 0
        self._reported = 0.0

    @property
    def timed_steps(self) -> int:
        """Steady steps timed so far, of the kind that was timed least."""
        return min(self.filling.steps, self.clock.steps)

    def train(self, windows: Tensor, *, ends_pass: bool = True) -> None:
        """Take one step per global batch of windows [windows]; the last may be smaller and weighs what it holds.

        Args:
            windows: Numbers of the windows, in order.
            ends_pass: Whether the pass over the training windows ends with them.

        Raises:
            Diverged: If a loss is not finite.
        """
        clock = self.filling if self._passes == 0 else self.clock
        clock.resume()
        for group, batches in self._groups(windows, clock):
            is_full = len(group) == self._config.global_batch * self.engine.world
            is_timed = is_full or self._config.train_samples is None
            recording = self._begin_step(clock, is_timed=is_timed)
            loss = self.take_step(group, batches)
            if recording:
                recording.end_step()
            elif is_timed:
                clock.step_done()
            self.steps_done += 1
            self.samples += len(group)
            self._between_steps(self.steps_done, self.samples, self._loss_to_report(loss))
        clock.pause()
        self._check_updates()
        if self.profiler is not None:
            self.profiler.finish()
        self._passes += ends_pass

    def time_more(self, least: int, seconds: float, half_width: float = math.inf) -> None:
        """Take extra steps until enough steady ones are timed; what the run reports of errors is done by then.

        Args:
            least: Steady steps to reach, of every kind that an epoch has.
            seconds: Stop after this long, once one steady step of every kind is timed.
            half_width: Take more than the least until half of the 95 % interval of an epoch's time, relative to it, is
                no wider.
        """
        windows = self.prepared.windows.timing
        size = self._config.global_batch * self.engine.world
        full = windows.repeat(math.ceil(size / len(windows)))[: max(size, len(windows) // size * size)]
        deadline = time.perf_counter() + seconds
        seen = max(size, min(self.samples, len(full)) // size * size)
        while True:
            for clock in dict.fromkeys((self.filling, self.clock)):
                while self._wants_more(clock, least, deadline):
                    if self.prepared.store is None:
                        self._take_timed_steps(full, clock, least, deadline)
                    elif clock is self.filling:
                        self.prepared.store.forget()
                        seen = size * self._take_timed_steps(full, clock, least, deadline)
                    else:
                        self._take_timed_steps(full[:seen], clock, least, deadline)
            is_done = time.perf_counter() > deadline or self.is_tight(half_width)
            if self.engine.agree(is_done, self._device):
                return
            least = max(least, self.timed_steps) + STEPS_PER_LOOK * self.clock.steps_per_reading

    def is_tight(self, half_width: float) -> bool:
        """Whether the 95 % interval of an epoch's time is as narrow as this, half of it relative to the time."""
        epoch = self.seconds_per_epoch()
        return half_width == math.inf or (epoch is not None and (epoch.high - epoch.low) / 2 <= half_width * epoch.mean)

    def _take_timed_steps(self, windows: Tensor, clock: StepClock, least: int, deadline: float) -> int:
        """Take extra steps on windows until there are enough or the windows end; returns how many."""
        taken = 0
        clock.resume()
        for group, batches in self._groups(windows, clock):
            self.take_step(group, batches)
            clock.step_done()
            taken += 1
            self._between_steps(self.steps_done, self.samples, None)
            if not self._wants_more(clock, least, deadline):
                break
        clock.pause()
        return taken

    def _wants_more(self, clock: StepClock, least: int, deadline: float) -> bool:
        """Whether another extra step is taken, as the first process decides; one steady step is always timed."""
        is_late = bool(clock.steps) and time.perf_counter() > deadline
        return self.engine.agree(clock.steps < least and not is_late, self._device)

    def seconds_per_step(self) -> tuple[float, float]:
        """Mean and median seconds of a steady step; of those that use the prompt store, where there is one."""
        clock = self.clock if self.clock.steps else self.filling
        per_step = np.asarray(clock.seconds) / np.asarray(clock.counts)
        return float(np.sum(clock.seconds) / clock.steps), float(np.median(per_step))

    def seconds_per_epoch(self) -> Estimate | None:
        """Seconds of one pass over all training windows, mean over the planned epochs.

        With a prompt store the first epoch fills it and the others use it. None before a steady step was timed.
        """
        filling, using = self.filling.per_step(), self.clock.per_step()
        if filling is None:
            return None
        steps = math.ceil(self.prepared.windows.epoch_windows / (self._config.global_batch * self.engine.world))
        if self.clock is self.filling or using is None:
            return filling.scaled(steps)
        first = 1 / self._config.train_epochs
        return filling.scaled(steps * first).plus(using.scaled(steps * (1 - first)))

    def data_wait_percent(self) -> float | None:
        """Share of the steady steps' time in which the device waited for batches; None before one was timed."""
        clocks = {self.filling, self.clock}
        seconds = sum(sum(clock.seconds) for clock in clocks)
        return 100 * sum(clock.idle_seconds for clock in clocks) / seconds if seconds else None

    def warmup_excess(self, steady: float) -> float:
        """What the first steps took above steady ones, seconds."""
        return max(0.0, sum(self.filling.warmup_seconds) - steady * len(self.filling.warmup_seconds))

    def _groups(self, windows: Tensor, clock: StepClock) -> Iterator[tuple[Tensor, list[Batch]]]:
        """Global batches with this process's micro batches, of which every process has as many.

        The clock is told how long the device waits for them.
        """
        config, engine = self._config, self.engine
        groups = micro_batches(windows, config.global_batch * engine.world)

        def mine(number: int) -> Sequence[Tensor]:
            return shares(groups[number], engine.rank, engine.world, config.batch_size)

        each = config.accumulation_steps  # micro batches of a group that is full

        def cut(number: int) -> Tensor:
            share = mine(number // each)[number % each]
            return share if len(share) else groups[number // each][:1]

        last = len(groups) - 1
        stream = self.prepared.train(Groups(last * each + len(mine(last)), cut), clock.stopped)
        starts_workers = config.num_workers > 0 and config.train_samples is not None
        for number, group in enumerate(groups):
            clock.idle.mark()
            with part("data"):
                batches = [_counting(next(stream), len(windows)) for windows in mine(number)]
            clock.idle.mark()
            if number == 0 and starts_workers:
                clock.resume()  # a pass starts them once, a projection would take that for a part of every few steps
            yield group, batches

    def _begin_step(self, clock: StepClock, *, is_timed: bool) -> StepProfiler | None:
        """The profiler, if it records the step that follows: the clock stands still meanwhile.

        It stands still, too, from the start of a step that does not count.
        """
        if self.profiler is not None and self.profiler.begin_step():
            clock.pause()
            return self.profiler
        if not is_timed:
            clock.pause()
        elif not clock.is_running:
            clock.resume()
        return None

    def take_step(self, group: Tensor, batches: list[Batch]) -> Tensor:
        """One update on the mean squared error over the group's windows; returns that error."""
        if (graph := self._static_step(batches)) is not None:
            return graph
        engine, network = self.engine, self.prepared.model
        shared = network.prototypes() if engine.shares_prototypes else None
        leaves = self.leaves(shared, len(batches)) if shared else None
        total: Tensor | None = None
        store = self.prepared.store
        for number, batch in enumerate(batches):
            with part("prompt"):
                prompt = batch.prompt if store is None else store.prompt(batch)
            is_last = number == len(batches) - 1
            last = _joined(shared, leaves) if is_last and engine.maps_with_the_last else None
            with engine.micro_batch(is_last=is_last):
                with part("network"):
                    forecast = engine.model(batch.x, prompt, last or leaves)
                loss = _share_of_error(forecast, batch.y, len(group))
                total = loss.detach() if total is None else total + loss.detach()
                if last and leaves:
                    loss = loss + _with_gradients_of(leaves, last)
                elif leaves and engine.wants_every_gradient:
                    loss = loss + _nothing(network.prototype_parameters())
                engine.backward(loss if engine.world == 1 else loss * engine.world, is_last=is_last)
        if shared and leaves and not engine.maps_with_the_last:
            gradients = [cast(Tensor, leaf.grad).to(part.dtype) for leaf, part in zip(leaves, shared, strict=True)]
            torch.autograd.backward(shared, gradients)
        with part("optimizer"):
            engine.step()
        assert total is not None
        return engine.gather(total)

    def _static_step(self, batches: list[Batch]) -> Tensor | None:
        """The step of a batch whose shapes are those of all, in places that never change; None for any other batch."""
        config, store = self._config, self.prepared.store
        if not config.step_graph or len(batches[0].y) != config.batch_size or self.engine.world > 1:
            return None
        (batch,) = batches
        if not self.static.fits(batch):
            return None
        if store is not None:
            batch = dataclasses.replace(batch, prompt=store.prompt(batch))
        assert isinstance(self.engine, PlainEngine)
        loss = self.static(batch)
        self.engine.advance()
        return loss.clone()

    def update(self, batch: Batch) -> Tensor:
        """Forward pass, backward pass and update of one batch, nothing of which a number is asked."""
        engine, network = self.engine, self.prepared.model
        assert isinstance(engine, PlainEngine)
        forecast = network(batch.x, batch.prompt, network.prototypes())
        loss = F.mse_loss(forecast, batch.y)
        loss.backward()
        engine.update_in_place()
        return loss.detach()

    def leaves(self, shared: Prototypes, micro_batches: int) -> Prototypes:
        """The prototypes of a step as its micro batches read them; their gradients are added up in fp32."""
        is_added_up = micro_batches > 1
        keys, values = ((part.detach().float() if is_added_up else part.detach()).requires_grad_() for part in shared)
        if self._config.keeps_gradients:
            keep_gradients((keys, values))
        return keys, values

    def _check_updates(self) -> None:
        """End a run that makes no update any more: all of its gradients overflow."""
        if self.engine.skipped_in_a_row() >= MOST_SKIPPED:
            raise Diverged(self.steps_done, self._config.precision, MOST_SKIPPED)

    def _loss_to_report(self, loss: Tensor) -> float | None:
        """The loss as a number: always on a CPU, now and then on a GPU, where reading it waits for the device.

        The first process alone decides: the others would leave at another step, and they end with it.
        """
        if self.engine.rank:
            return None
        now = time.perf_counter()
        due = now - self._reported > SECONDS_BETWEEN_REPORTS
        if self._device.type != "cpu" and not due:
            return None
        value = loss.item()
        if not math.isfinite(value):
            raise Diverged(self.steps_done, self._config.precision)
        self._check_updates()
        if not due:
            return None
        self._reported = now
        return value


def shares(group: Tensor, rank: int, world: int, size: int) -> Sequence[Tensor]:
    """One process's micro batches of a global batch; windows are dealt out one by one, each to one process.

    Args:
        group: Numbers of the windows [windows].
        rank: Number of the process.
        world: Processes that train together.
        size: Micro batch, windows.

    Returns:
        As many micro batches for every process; the last ones may be smaller, or empty.
    """
    count = math.ceil(math.ceil(len(group) / world) / size)
    parts = list(micro_batches(group[rank::world], size)) if rank < len(group) else []
    return parts + [group[:0]] * (count - len(parts))


def _share_of_error(forecast: Tensor, y: Tensor, windows: int) -> Tensor:
    """What a micro batch adds to the mean squared error over so many windows; rows beyond its own do not count."""
    if len(y) == windows == len(forecast):
        return F.mse_loss(forecast, y)
    return F.mse_loss(forecast[: len(y)], y, reduction="sum") / (windows * y.shape[1])


def _joined(shared: Prototypes | None, leaves: Prototypes | None) -> Prototypes | None:
    """The prototypes themselves, in the type of the leaves that stood for them."""
    if shared is None or leaves is None:
        return None
    keys, values = (part.to(leaf.dtype) for part, leaf in zip(shared, leaves, strict=True))
    return keys, values


def _with_gradients_of(leaves: Prototypes, prototypes: Prototypes) -> Tensor | float:
    """Zero, whose gradients of the prototypes are those that micro batches left at the leaves."""
    pairs = [(part, leaf.grad) for part, leaf in zip(prototypes, leaves, strict=True) if leaf.grad is not None]
    return sum(((part - part.detach()) * grad).sum() for part, grad in pairs)


def _nothing(parameters: Iterable[Tensor]) -> Tensor | float:
    """Zero, whose gradients are zero."""
    return sum(parameter.sum() for parameter in parameters) * 0


def _counting(batch: Batch, windows: int) -> Batch:
    """A batch of which only so many windows weigh: an empty share is computed on a window that weighs nothing."""
    return batch if len(batch.y) == windows else dataclasses.replace(batch, y=batch.y[:windows])
