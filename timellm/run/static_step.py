"""A training step whose shapes and places in memory never change, so that a GPU can replay it as one CUDA graph.

A GPU that is fast for a small batch waits for the process that launches its kernels; a graph launches all of a step at
once. What a step reads and writes keeps its place: the batch is copied into buffers, gradients are added up where they
lie, the learning rate is a tensor, and nothing inside asks the device for a number.

Where a graph cannot be recorded, the run goes on without one: recording computes nothing, so nothing is lost.
"""

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from timellm.contract.errors import first_line
from timellm.model.reuse import PromptMemory
from timellm.model.timellm import PromptBatch
from timellm.run.batches import Batch

WARMUP_STEPS = 3
"""Steps before a graph is recorded, in which libraries take the memory that they keep."""


class StaticStep:
    """Takes steps over batches of one shape: on a GPU as a graph, from the fourth on; elsewhere as they are.

    Args:
        step: Forward pass, backward pass and update for a batch; returns the error. It must leave every gradient
            zero, or set it to zero first, in place.
        device: Where it runs.

    Attributes:
        loss: Error of the latest step; None before the first.
        taken: Steps so far.
        problem: Why a GPU's steps are launched one by one all the same; None while all is well.
    """

    def __init__(self, step: Callable[[Batch], Tensor], device: torch.device) -> None:
        self._step, self._device = step, device
        self._buffers: Batch | None = None
        self._stream: torch.cuda.Stream | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._outside: list[torch.UntypedStorage] = []
        self.loss: Tensor | None = None
        self.taken = 0
        self.problem: str | None = None

    @property
    def buffers(self) -> Batch | None:
        """Where every batch is copied to; None before the first."""
        return self._buffers

    def fits(self, batch: Batch) -> bool:
        """Whether a batch has the shape of the first; one with a prompt that is longer than expected has not."""
        return self._buffers is None or batch.prompt.ids.shape == self._buffers.prompt.ids.shape

    def __call__(self, batch: Batch) -> Tensor:
        """Take a step; returns its error, which the next step overwrites."""
        if self._buffers is None:
            self._buffers = _like(batch)
        _fill(self._buffers, batch)
        self.taken += 1
        if self._device.type != "cuda":
            return self._keep(self._step(self._buffers))
        if self.taken <= WARMUP_STEPS:
            return self._warm_up(self._buffers)
        if self._graph is None and self.problem is None:
            self._record(self._buffers)
        if self._graph is None:
            return self._keep(self._step(self._buffers))
        assert self.loss is not None
        self._graph.replay()
        return self.loss

    def _keep(self, loss: Tensor) -> Tensor:
        """The error in a place of its own."""
        if self.loss is None:
            self.loss = torch.empty_like(loss)
        return self.loss.copy_(loss)

    def _warm_up(self, batch: Batch) -> Tensor:
        """A step on a stream of its own, as recording one asks for; the last tells what a graph will read."""
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)
        outside = OutsideMemory()
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.cuda.stream(self._stream))
            if self.taken == WARMUP_STEPS:
                stack.enter_context(outside)
            loss = self._step(batch)
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        self._outside = outside.kept
        return loss

    def _record(self, batch: Batch) -> None:
        """Record a step; where that fails, say so and leave torch as it was before.

        Loader workers' memory is page-locked by a thread of its own, which must not spoil the recording.
        """
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        stream = torch.cuda.current_stream(self._device)
        try:
            with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"):
                loss = self._step(batch)
        except RuntimeError as error:
            first = error.__context__ if isinstance(error.__context__, RuntimeError) else error
            _leave_recording(graph, pool, stream)
            self.problem = (
                f"step_graph: A step could not be recorded as a CUDA graph ({first_line(first, 'no reason given')}). "
                "Steps are launched one by one, with the same numbers."
            )
            warnings.warn(self.problem, stacklevel=2)
        else:
            self._graph, self.loss = graph, loss


class OutsideMemory(TorchDispatchMode):
    """Keeps the memory that operations read and that none of them made: a graph reads it as long as it is replayed.

    Weights and moments stay anyway, but what is made once and kept for later, such as masks, may make room for others.

    Attributes:
        kept: The memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[torch.UntypedStorage] = []
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and keep its operands."""
        for storage in _storages((args, kwargs)):
            if storage.data_ptr() not in self._known:
                self._known.add(storage.data_ptr())
                self.kept.append(storage)
        result = func(*args, **(kwargs or {}))
        self._known.update(storage.data_ptr() for storage in _storages(result))
        return result


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [each.untyped_storage() for each in tree_leaves(values) if isinstance(each, Tensor)]


def _leave_recording(graph: torch.cuda.CUDAGraph, pool: Any, stream: torch.cuda.Stream) -> None:
    """Undo what a recording that failed leaves behind.

    Torch's own end of it is cut short (2.13): the recording's stream stays the current one, memory is still looked for
    in its pool, and in earlier versions the generator of random numbers goes on as if it were recorded. An error of the
    device itself is raised here.
    """
    torch.cuda.set_stream(stream)
    with contextlib.suppress(RuntimeError):  # says that it has ended, where only the graph could not be made
        torch.cuda.memory._cuda_endAllocateToPool(stream.device.index, pool)
        torch.cuda.memory._cuda_releasePool(stream.device.index, pool)
    graph.reset()
    generator = torch.cuda.default_generators[stream.device.index]
    generator.graphsafe_set_state(generator.clone_state())
    torch.cuda.synchronize(stream.device)


def _parts(batch: Batch) -> list[Tensor]:
    """The tensors of a batch on its device."""
    prompt = batch.prompt
    memory = None if prompt.memory is None else prompt.memory.stack
    return [part for part in (batch.x, batch.y, prompt.ids, prompt.lengths, memory) if part is not None]


def _like(batch: Batch) -> Batch:
    prompt = batch.prompt
    memory = None if prompt.memory is None else PromptMemory.of(torch.empty_like(prompt.memory.stack))
    lengths = None if prompt.lengths is None else torch.empty_like(prompt.lengths)
    x, y = (torch.empty(part.shape, dtype=part.dtype, device=part.device) for part in (batch.x, batch.y))
    return Batch(batch.indices, x, y, PromptBatch(torch.empty_like(prompt.ids), lengths, memory))


def _fill(buffers: Batch, batch: Batch) -> None:
    for target, source in zip(_parts(buffers), _parts(batch), strict=True):
        target.copy_(source, non_blocking=True)
