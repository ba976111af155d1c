"""A training step whose shapes and places in memory never change, so that a GPU can replay it as one CUDA graph.

A GPU that is fast for a small batch waits for the process that launches its kernels; a graph launches all of a step at
once. What a step reads and writes keeps its place: the batch is copied into buffers, gradients are added up where they
lie, the learning rate is a tensor, and nothing inside asks the device for a number.
"""

from collections.abc import Callable

import torch
from torch import Tensor

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
    """

    def __init__(self, step: Callable[[Batch], Tensor], device: torch.device) -> None:
        self._step, self._device = step, device
        self._buffers: Batch | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self.loss: Tensor | None = None
        self.taken = 0

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
        if self._graph is None:
            self._record(self._buffers)
        assert self._graph is not None
        assert self.loss is not None
        self._graph.replay()
        return self.loss

    def _keep(self, loss: Tensor) -> Tensor:
        """The error in a place of its own."""
        if self.loss is None:
            self.loss = torch.empty_like(loss)
        return self.loss.copy_(loss)

    def _warm_up(self, batch: Batch) -> Tensor:
        """A step on a stream of its own, as recording one asks for."""
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            loss = self._step(batch)
        torch.cuda.current_stream(self._device).wait_stream(stream)
        return loss

    def _record(self, batch: Batch) -> None:
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self.loss = self._step(batch)


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
