"""The published computation and each step away from it, ready to train on the same windows in one process."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.data import load_data
from timellm.model.timellm import TimeLLM
from timellm.optimize.engine import build_engine
from timellm.run.batches import Batch
from timellm.run.preparation import Preparation, prepare
from timellm.run.stepping import Stepper

STEPS_OF_SCHEDULE = 1_000_000
"""So long that the learning rate stays what it is."""

STEPS_OF_EVALUATION = 2
"""Validation batches that are held."""


@dataclass(frozen=True)
class Variant:
    """One way to compute a step.

    Attributes:
        name: Row of the tables.
        settings: Settings in which it differs from the run that the flags describe.
        keeps_fp32_weights: Backbone stored in fp32 under autocast, as published, instead of in the compute type.
    """

    name: str
    settings: dict[str, Any]
    keeps_fp32_weights: bool = False


PUBLISHED_SETTINGS: dict[str, Any] = {
    "prompt_prefix": "recompute",
    "attention": "eager",
    "precision": "fp32",
    "fused_optimizer": False,
    "prompt_padding": "published",
}
_PLAIN_REUSE: dict[str, Any] = {"prompt_prefix": "reuse", "fused_optimizer": False}
_REUSE: dict[str, Any] = {"prompt_prefix": "reuse", "fused_optimizer": True}
_STORE: dict[str, Any] = {"prompt_prefix": "store", "fused_optimizer": True}
_ALL_STORED: dict[str, Any] = {**_STORE, "prompt_store_gib": 1e6}
"""Room for every prompt of the data set; memory is only taken for the windows that are trained on."""

PUBLISHED = Variant("published", PUBLISHED_SETTINGS)
PUBLISHED_AMP = Variant("published + bf16 autocast", {**PUBLISHED_SETTINGS, "precision": "bf16"}, True)
OURS = Variant("reuse bf16", {**_REUSE, "precision": "bf16"})
STORE = Variant("store bf16", {**_STORE, "precision": "bf16"})

VARIANTS = (
    PUBLISHED,
    PUBLISHED_AMP,
    Variant("recompute, masked padding", {**PUBLISHED_SETTINGS, "prompt_padding": "masked"}),
    Variant("recompute sdpa", {**PUBLISHED_SETTINGS, "attention": "sdpa"}),
    Variant("reuse fp32 eager", {**_PLAIN_REUSE, "attention": "eager"}),
    Variant("reuse fp32 sdpa", {**_PLAIN_REUSE, "attention": "sdpa"}),
    Variant("reuse fp32, fused Adam", _REUSE),
    OURS,
    Variant("reuse bf16 sdpa", {**_REUSE, "precision": "bf16", "attention": "sdpa"}),
    Variant("reuse bf16, accumulation 4", {**_REUSE, "precision": "bf16", "accumulation_steps": 4}),
    Variant("store fp32", _ALL_STORED),
    Variant("store bf16", {**_ALL_STORED, "precision": "bf16"}),
)
"""fp32, eager attention, masked padding and one batch per optimizer step unless the name says otherwise."""


def _map_as_published(model: TimeLLM) -> None:
    """Let autocast choose the types of the mapping layer's products, in the backward pass too."""
    layer = model.mapping_layer

    def prototypes(embeddings: Tensor, *_: Any) -> Tensor:
        return F.linear(embeddings.t(), layer.weight, layer.bias).t()

    layer.prototypes = prototypes  # type: ignore[method-assign]


def find_variant(name: str) -> Variant:
    """The variant of this name.

    Raises:
        InputError: If there is none.
    """
    for variant in VARIANTS:
        if variant.name == name:
            return variant
    raise InputError(f"A variant must be one of {', '.join(v.name for v in VARIANTS)}, got {name!r}.")


class Contestant:
    """A variant on its device, with everything that a run of it builds.

    Args:
        variant: How it computes.
        base: The run that the flags describe.
        device: Where it runs.
        steps: Optimizer steps to hold windows for; None for those of a whole epoch.
    """

    def __init__(self, variant: Variant, base: RunConfig, device: torch.device, steps: int | None) -> None:
        settings = {"accumulation_steps": 1, "attention": "eager", "prompt_padding": "masked", "precision": "fp32"}
        config = base.replace(**{**settings, **variant.settings})
        samples = len(load_data(config).train) if steps is None else steps * config.global_batch
        held = STEPS_OF_EVALUATION * config.batch_size
        config = config.replace(train_samples=samples, val_samples=held, train_epochs=1, warmup_steps=0)
        self.variant, self.config, self.device = variant, config, device
        stored = config.replace(precision="fp32") if variant.keeps_fp32_weights else config
        self.prepared: Preparation = prepare(stored, device, 0)
        self.prepared.model.config = config
        if variant.keeps_fp32_weights:
            _map_as_published(self.prepared.model)
        self.groups = list(self.prepared.windows.passes[0].split(config.global_batch))
        self._validation = list(self.prepared.windows.validation.split(config.batch_size))
        self._steps = self._evaluations = 0
        self._stepper: Stepper | None = None

    @property
    def model(self) -> TimeLLM:
        """The network."""
        return self.prepared.model

    @property
    def shares_prototypes(self) -> bool:
        """Whether an evaluation computes the prototypes once."""
        return self.config.prompt_prefix != "recompute"

    def share_weights(self, other: "Contestant") -> None:
        """Use another contestant's tensors wherever name, shape and type agree, to start alike and to save memory."""
        theirs = dict(other.model.named_parameters())
        for name, parameter in self.model.named_parameters():
            match = theirs.get(name)
            if match is not None and parameter.shape == match.shape and parameter.dtype == match.dtype:
                parameter.data = match.data

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one pass over the data set."""
        return math.ceil(self.prepared.windows.epoch_windows / self.config.global_batch)

    def step(self) -> None:
        """One optimizer step on the next windows, round and round."""
        self._train(self.groups[self._steps % len(self.groups)])
        self._steps += 1

    def filling_step(self) -> None:
        """A step that computes its prompts and puts them into the store."""
        assert self.prepared.store is not None
        self.prepared.store.forget()
        self.step()

    def epoch(self) -> None:
        """A pass over the windows that are held."""
        self._train(self.prepared.windows.passes[0])

    def _train(self, windows: Tensor) -> None:
        if self._stepper is None:
            engine = build_engine(self.config, self.model, self.device, STEPS_OF_SCHEDULE)
            self._stepper = Stepper(self.config, self.prepared, engine, self.device, lambda *report: None)
        self.model.train()
        self._stepper.train(windows)

    @torch.no_grad()
    def evaluate_batch(self, prototypes: Any) -> None:
        """Forecast the next validation batch."""
        group = self._validation[self._evaluations % len(self._validation)]
        (batch,) = self.prepared.validation([group])
        self.model(batch.x, batch.prompt, prototypes)
        self._evaluations += 1

    @torch.no_grad()
    def shared_prototypes(self) -> Any:
        """What an evaluation computes once; None where every batch computes it."""
        return self.model.prototypes() if self.shares_prototypes else None

    def first_batch(self) -> Batch:
        """The micro batch that parity is judged on: the same windows for every contestant."""
        (batch,) = self.prepared.train([self.groups[0][: self.config.batch_size]])
        return batch


@dataclass(frozen=True)
class Answer:
    """What a model says of a batch.

    Attributes:
        forecast: Scaled forecasts [windows, pred_len].
        gradients: Gradient of the mean squared error by parameter.
    """

    forecast: Tensor
    gradients: dict[str, Tensor] = field(repr=False)

    def difference(self, reference: "Answer") -> tuple[float, float]:
        """Largest difference of a forecast and of a gradient, relative to the largest value of the reference.

        The bias of the key projection is left out: its gradient is zero except for rounding.
        """
        gradients = [
            _relative(gradient, reference.gradients[name])
            for name, gradient in self.gradients.items()
            if not name.endswith("key_projection.bias")
        ]
        return _relative(self.forecast, reference.forecast), max(gradients)


def answer(contestant: Contestant) -> Answer:
    """Forecast and gradients on the first batch, dropout off."""
    model, batch, store = contestant.model, contestant.first_batch(), contestant.prepared.store
    model.eval()
    forecast = model(batch.x, store.prompt(batch) if store else batch.prompt)
    (forecast - batch.y).square().mean().backward()
    gradients = {}
    for name, parameter in model.trained_parameters():
        assert parameter.grad is not None
        gradients[name], parameter.grad = parameter.grad, None
    return Answer(forecast.detach(), gradients)


def _relative(value: Tensor, reference: Tensor) -> float:
    return ((value - reference).abs().max() / reference.abs().max()).item()
