"""A run that has been set up, as the clocks see it."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from timellm.contract.config import RunConfig
from timellm.optimize.engine import Engine
from timellm.run.batches import Batch, Batches
from timellm.run.evaluate import Scores, batch_that_fits, evaluate
from timellm.run.preparation import Preparation
from timellm.run.stepping import Stepper


@dataclass(frozen=True)
class Running:
    """The parts of a run.

    Attributes:
        config: Its settings.
        prepared: Its network, windows and batches.
        engine: Turns losses into updates.
        stepper: Takes optimizer steps.
        device: Where it runs.
        stop_if_told: Raises if the run has been told to stop.
    """

    config: RunConfig
    prepared: Preparation
    engine: Engine
    stepper: Stepper
    device: torch.device
    stop_if_told: Callable[[], None]

    @functools.cached_property
    def validation_batch(self) -> int:
        """Windows of a validation batch, found when the first is due."""
        prepared = self.prepared
        return batch_that_fits(
            self.config, prepared.model, prepared.validation, prepared.windows.validation, self.device
        )

    def score(
        self,
        windows: Tensor,
        *,
        batches: Batches | None = None,
        warms_up: bool = False,
        between_batches: Callable[[], None] | None = None,
        on_forecast: Callable[[Batch, Tensor], None] | None = None,
    ) -> Scores:
        """Errors over windows [windows].

        Args:
            windows: Their numbers.
            batches: Cuts them (default: the validation split).
            warms_up: Compute the first batch once before the clock starts.
            between_batches: Called after each batch, before it is asked whether to stop.
            on_forecast: Called with each batch and its scaled forecasts.
        """

        def after_batch() -> None:
            if between_batches is not None:
                between_batches()
            self.stop_if_told()

        return evaluate(
            self.prepared.model,
            self.prepared.validation if batches is None else batches,
            windows,
            self.validation_batch,
            self.device,
            shares_prototypes=self.config.prompt_prefix != "recompute",
            warms_up=warms_up,
            between_batches=after_batch,
            on_forecast=on_forecast,
            engine=self.engine,
        )
