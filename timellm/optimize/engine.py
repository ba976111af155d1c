"""Who turns a loss into an update: Accelerate, or DeepSpeed's ZeRO-2."""

import contextlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor, nn

from timellm.contract.config import RunConfig, lr_scaling_factor
from timellm.contract.errors import InputError, error_words
from timellm.machine.launcher import is_launched, without_launcher_settings
from timellm.machine.process import world_size
from timellm.model.mapping import MappingLayer
from timellm.model.timellm import TimeLLM
from timellm.optimize.deepspeed_config import load_deepspeed_config
from timellm.optimize.extensions import load_extensions
from timellm.optimize.loss_scale import SkippedUpdates, ZeroLossScale
from timellm.optimize.schedule import build_schedule


class Engine(ABC):
    """Gradients and updates of one run.

    Attributes:
        model: What to call for a forward pass; wraps the network.
        shares_prototypes: Whether the mapping layer may run once per optimizer step instead of once per micro batch.
        maps_with_the_last: Whether its backward pass then must be part of the last micro batch's.
        wants_every_gradient: Whether each micro batch must leave a gradient of all that is trained, be it zero.
        compile_seconds: Time that compiling extensions took.
        world: Processes that train together.
        rank: Number of this one.
        settings: DeepSpeed's configuration; None without DeepSpeed.
    """

    model: Any
    shares_prototypes: bool
    maps_with_the_last: bool = False
    wants_every_gradient: bool = False
    compile_seconds: float = 0.0
    world: int = 1
    rank: int = 0
    settings: dict[str, Any] | None = None

    def skipped_in_a_row(self) -> int:
        """Updates that were skipped since the last that was not, because scaled gradients overflowed; may wait."""
        return 0

    @abstractmethod
    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Add a micro batch's gradients; `is_last` marks the last one before `step`."""

    @abstractmethod
    def step(self) -> None:
        """Clip, update, advance the schedule, and forget the gradients."""

    @property
    @abstractmethod
    def learning_rate(self) -> float:
        """Learning rate of the next update."""

    def micro_batch(self, *, is_last: bool) -> contextlib.AbstractContextManager[Any]:
        """What a micro batch's forward and backward pass run in; `is_last` marks the last one before `step`."""
        return contextlib.nullcontext()

    def gather(self, values: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place."""
        if self.world > 1:
            torch.distributed.all_reduce(values)
        return values

    def largest(self, value: float, device: torch.device) -> float:
        """The largest of all processes' numbers."""
        if self.world == 1:
            return value
        values = torch.tensor([value], dtype=torch.float64, device=device)
        torch.distributed.all_reduce(values, op=torch.distributed.ReduceOp.MAX)
        return values.item()

    def agree(self, decision: bool, device: torch.device) -> bool:
        """What the first process decides: clocks differ, and all must take the same steps."""
        if self.world == 1:
            return decision
        values = torch.tensor([decision], dtype=torch.uint8, device=device)
        torch.distributed.broadcast(values, 0)
        return bool(values.item())

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the first one's tensors, in place."""
        if self.world > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor, 0)


class PlainEngine(Engine):
    """One device, or several by distributed data parallel, through Accelerate."""

    def __init__(self, config: RunConfig, model: TimeLLM, device: torch.device, steps: int) -> None:
        mixed = "fp16" if config.precision == "fp16" else "no"
        frozen_buffers = DistributedDataParallelKwargs(broadcast_buffers=False)
        with without_launcher_settings():
            self.accelerator = Accelerator(
                mixed_precision=mixed, cpu=device.type == "cpu", kwargs_handlers=[frozen_buffers]
            )
        self.world, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        self._one: Tensor | None = None
        self._max_norm = config.max_grad_norm
        self._keeps_gradients = config.keeps_gradients
        self._parameters = [parameter for _, parameter in model.trained_parameters()]
        self.shares_prototypes = config.shares_prototypes and self.world == 1
        self._mapping_layers = [module for module in model.modules() if isinstance(module, MappingLayer)]
        optimizer = build_optimizer(config, self._parameters)
        create_state(optimizer)
        self._drop_gradients(optimizer)
        self.schedule = build_schedule(config, optimizer, steps)
        # Model and moments lie where they belong; placed by Accelerate, the step counts of a plain Adam would move to
        # the GPU, and each update would wait for every one of them.
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer, device_placement=[False, False])
        scaler = self.accelerator.scaler
        self._skipped = None if scaler is None else SkippedUpdates(scaler)

    def micro_batch(self, *, is_last: bool) -> contextlib.AbstractContextManager[Any]:
        """Synchronise between processes with the last micro batch only."""
        return contextlib.nullcontext() if is_last else self.accelerator.no_sync(self.model)

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Scaled in fp16; Accelerate itself would divide the loss by one."""
        scaler = self.accelerator.scaler
        if self._one is None:
            self._one = torch.ones_like(loss)  # made once: torch makes one for every backward pass
        (loss if scaler is None else scaler.scale(loss)).backward(self._one)

    def step(self) -> None:
        """Skip the update when a scaled fp16 gradient overflowed, as the gradient scaler decides."""
        if self._max_norm > 0:
            self.accelerator.clip_grad_norm_(self._parameters, self._max_norm)
        if self._skipped is not None:
            self._skipped.begin()
        self.optimizer.step()
        if self._skipped is not None:
            self._skipped.end()
        self._drop_gradients(self.optimizer)
        self.advance()

    def advance(self) -> None:
        """Set the next update's learning rate."""
        self.schedule.step()

    def update_in_place(self) -> None:
        """As `step`, without what a graph cannot hold: the schedule is advanced by the caller."""
        if self._max_norm > 0:
            torch.nn.utils.clip_grad_norm_(self._parameters, self._max_norm)
        self.optimizer.step()
        keep_gradients(self._parameters)

    def skipped_in_a_row(self) -> int:
        """Waits for a GPU in fp16."""
        return 0 if self._skipped is None else self._skipped.read()

    def _drop_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """Forget the gradients, but not their memory where they must stay in it.

        Mapping layers keep the memory of theirs where they run once a step, and never as compiled code.
        """
        if self._keeps_gradients:
            keep_gradients(self._parameters)
            return
        if self.shares_prototypes:
            for layer in self._mapping_layers:
                layer.drop_gradient()
        optimizer.zero_grad(set_to_none=True)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next update."""
        return float(self.schedule.get_last_lr()[0])


class DeepSpeedEngine(Engine):
    """ZeRO-2, with or without the optimizer on the CPU."""

    maps_with_the_last = True

    def __init__(self, config: RunConfig, model: TimeLLM, device: torch.device, steps: int) -> None:
        started = time.perf_counter()
        if device.type == "cpu":
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        import deepspeed

        parameters = [parameter for _, parameter in model.trained_parameters()]
        settings = load_deepspeed_config(config, sum(parameter.numel() for parameter in parameters))
        self.settings = settings
        offloads = settings["zero_optimization"].get("offload_optimizer", {}).get("device") == "cpu"
        self.wants_every_gradient = offloads  # it would add one that comes late to that of the update before
        if offloads:
            load_extensions(_cpu_adam_builders())
        _join_process_group(device)
        self.world, self.rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
        self.shares_prototypes = config.shares_prototypes and self.world == 1
        if offloads:
            from deepspeed.ops.adam import DeepSpeedCPUAdam

            optimizer: Any = DeepSpeedCPUAdam(
                parameters,
                lr=config.scaled_learning_rate,
                weight_decay=config.weight_decay,
                adamw_mode=config.optimizer == "adamw",
            )
        else:
            optimizer = build_optimizer(config, parameters)
        options = {"model_parameters": parameters, "config": settings, "dist_init_required": False}
        with _local_rank(), _refusals_of(config.deepspeed_config):
            self.model, self.optimizer, _, _ = deepspeed.initialize(model=model, optimizer=optimizer, **options)
        uses_fp16 = settings.get("torch_autocast", {}).get("dtype") in ("float16", "fp16", "half")
        drives = uses_fp16 and self.model.zero_optimization()  # without ZeRO, DeepSpeed's own scaler works
        self.loss_scale = ZeroLossScale(self.optimizer) if drives else None
        self.schedule = build_schedule(config, optimizer, steps)
        self.compile_seconds = time.perf_counter() - started

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """The loss is already divided by the global batch."""
        self.model.set_gradient_accumulation_boundary(is_last)
        self.model.backward(loss, scale_wrt_gas=False)

    def step(self) -> None:
        """DeepSpeed clips by its own configuration."""
        self.model.step()
        if self.loss_scale is not None:
            self.loss_scale.update()
        self.schedule.step()

    def skipped_in_a_row(self) -> int:
        """DeepSpeed has waited for the device already."""
        return 0 if self.loss_scale is None else self.loss_scale.skipped

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next update."""
        return float(self.schedule.get_last_lr()[0])


def build_engine(config: RunConfig, model: TimeLLM, device: torch.device, steps: int) -> Engine:
    """The engine that the run's settings ask for; lr_scaling counts the global batch of all processes.

    Args:
        config: The run's settings.
        model: The network, on its device.
        device: Where it runs.
        steps: Optimizer steps of the whole run.
    """
    if (world := world_size()) > 1:
        factor = lr_scaling_factor(config.lr_scaling, world)
        config = config.replace(learning_rate=config.learning_rate * factor)
    return (DeepSpeedEngine if config.uses_deepspeed else PlainEngine)(config, model, device, steps)


def keep_gradients(tensors: Iterable[Tensor]) -> None:
    """Set gradients to zero where they lie, in memory that is theirs: what comes is then added there.

    A CUDA graph leaves gradients in memory that its next replay overwrites; whatever is to outlive it, as with several
    micro batches to an update, must be added up elsewhere.

    Args:
        tensors: Leaves that are differentiated.
    """
    for tensor in tensors:
        if tensor.grad is None:
            tensor.grad = torch.zeros_like(tensor)
        else:
            tensor.grad.zero_()


def create_state(optimizer: torch.optim.Optimizer) -> None:
    """Create the moments of every parameter before the first step.

    Left to itself Adam creates them at the end of that step, in the memory that its temporaries have just left, so the
    second step has to take new memory, which on a CPU can cost half a second. An update by nothing creates them.

    Args:
        optimizer: Adam or AdamW whose parameters have no gradients. They have zeros afterwards.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    for state in optimizer.state.values():  # weight decay may have left its mark
        for moment in state.values():
            moment.zero_()


def build_optimizer(config: RunConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam or AdamW over the trained parameters; where a graph replays the steps, its rate is on the device."""
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    rate: float | Tensor = config.scaled_learning_rate
    if config.step_graph:
        rate = torch.tensor(rate, device=parameters[0].device)
    return kind(
        parameters,
        lr=rate,
        weight_decay=config.weight_decay,
        fused=True if config.uses_fused_optimizer else None,
        capturable=config.step_graph,
    )


def _cpu_adam_builders() -> list[Any]:
    """The builder of Adam on the CPU, which DeepSpeed compiles; none where it has none for this device."""
    from deepspeed.accelerator import get_accelerator

    builder = get_accelerator().create_op_builder("CPUAdamBuilder")
    return [] if builder is None else [builder]


@contextlib.contextmanager
def _refusals_of(file: str | None) -> Iterator[None]:
    """What DeepSpeed finds wrong with a user's file only when it starts is wrong input too."""
    try:
        yield
    except (AssertionError, AttributeError, ImportError, NotImplementedError, TypeError, ValueError) as error:
        if file is None:
            raise
        raise InputError(f"{file} must suit this run, but DeepSpeed says: {error_words(error)}. Correct it.") from error


@contextlib.contextmanager
def _local_rank() -> Iterator[None]:
    """DeepSpeed insists on LOCAL_RANK; left behind, it would tell child processes that a launcher started them."""
    launched = "LOCAL_RANK" in os.environ
    os.environ.setdefault("LOCAL_RANK", "0")
    try:
        yield
    finally:
        if not launched:
            del os.environ["LOCAL_RANK"]


def _join_process_group(device: torch.device) -> None:
    """Join the launcher's process group, or make one of this process alone, which needs no port."""
    import deepspeed

    backend = "gloo" if device.type == "cpu" else "nccl"
    # DeepSpeed's own communication on a CPU must be compiled, and waits for ever for a neighbour that has died.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not torch.distributed.is_initialized() and not is_launched(os.environ):
        torch.distributed.init_process_group(backend, store=torch.distributed.HashStore(), rank=0, world_size=1)
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False)
