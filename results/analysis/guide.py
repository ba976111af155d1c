"""What the acceleration guide expects of each plan and lever: minutes of an epoch, and speed-ups."""

import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Expectation:
    """A speed-up the guide expects, from `low` to `high`."""

    low: float
    high: float

    @property
    def words(self) -> str:
        """The range as text."""
        return f"{self.low:g} to {self.high:g}×"


EPOCH_WORDS = {
    "baseline": "56 min per epoch, 0.2744 s per batch",
    "plan-a": "15 to 25 min per epoch",
    "plan-b": "10 to 15 min per epoch",
}
"""What the guide says of whole epochs: GPT-2, ETTm1, the batches of all three splits, on a GPU."""

_PLANS = {"plana": Expectation(low=2.0, high=3.7), "planb": Expectation(low=3.7, high=5.6)}


def expected_of_plan(source: str) -> Expectation | None:
    """The guide's expectation of a plan by its name (`plan-a`, `plan_a`, `Plan A`)."""
    return _PLANS.get(re.sub("[^a-z]", "", source.lower()))


def expected_of_lever(knob: str, value: Any, reference: Any) -> Expectation | None:
    """The guide's expectation of a change of one knob; None where it expects nothing of it."""
    if knob == "precision" and reference == "fp32" and value in ("bf16", "fp16"):
        return Expectation(low=1.5, high=3.0)
    if knob == "batch_size" and reference == 32 and value in (64, 128):
        return Expectation(low=1.2, high=1.5)
    if knob == "offload_optimizer" and reference == "off" and value == "none":
        return Expectation(low=1.3, high=2.0)
    if knob == "compile_mode" and reference == "off":
        return Expectation(low=1.2, high=1.8)
    numbers = all(isinstance(side, int | float) for side in (value, reference))
    if knob == "num_workers" and numbers and value > reference:
        return Expectation(low=1.1, high=1.2)
    if knob == "llm_layers" and numbers and value < reference:
        return Expectation(low=1.2, high=2.0)
    return None
