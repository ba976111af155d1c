"""What timings and error trainings cost here: predicted from what has been measured, better with every run."""

import math
import statistics
from collections.abc import Mapping
from typing import Any

from search.decide.clocks.cheapest import cheapest
from search.decide.spend.fidelity import Fidelity
from search.decide.spend.work import Work
from timellm.contract.columns import State
from timellm.contract.config import RunConfig

TIMED_STEPS = 5
"""Steady steps that a timing takes as a rule: 4, and now and then some more until its interval is tight."""
FEWEST_STEPS = 4
"""Steady steps that it takes at least."""
VALIDATED_BATCHES = 3
"""Batches that a timing validates, to measure the time of a validation."""
SECONDS_AROUND = 1.0
"""Between the end of a run and the start of the next."""
FIRST_STARTUP = 10.0
"""From the start of a process to its first step, seconds, before any was measured: imports, data, tokens, weights."""
_MORE_STARTUP = {"off": 0.0, "none": 3.0, "cpu": 4.0}
"""What building DeepSpeed's engine adds, seconds, before it was measured."""
_COMPILING = 110.0
"""Compiling the CPU optimizer, seconds, which happens once on a machine."""
_EFFICIENCY = {"recompute": 1.0, "reuse": 0.8, "store": 0.6}
"""Operations per second relative to the published step's, before they were measured: products are smaller."""
_GUESSED_RATE = 100.0
"""Operations per second, in 1e9, where nothing at all was measured."""
_MOST_CORRECTION = 4.0


def slowdown_of(slowdown: Mapping[str, float], precision: str, prompt_prefix: str) -> float:
    """Time of a run in a precision, relative to fp32: where its products are slow, exact reuse computes them in fp32.

    Args:
        slowdown: Time of a matrix product in a precision, relative to fp32, by the precision's name.
        precision: The run's.
        prompt_prefix: The run's.
    """
    found = slowdown.get(precision, 1.0)
    return found if prompt_prefix == "recompute" else min(found, 1.0)


class RunCosts:
    """Predicts how long runs take.

    Args:
        work: Operations of runs.
        windows: Windows per split.
        slowdown: Time of a product in a precision relative to fp32, by the precision's name.
        rate: Operations per second that a product in fp32 reached, in 1e9; None if it was not measured.
        is_causal: Whether the language model's prompts can be reused.
        has_cpu_adam: Whether the CPU optimizer has been compiled here.
    """

    def __init__(
        self,
        work: Work,
        windows: Mapping[str, int],
        *,
        slowdown: Mapping[str, float] | None = None,
        rate: float | None = None,
        is_causal: bool = True,
        has_cpu_adam: bool = False,
    ) -> None:
        self._has_cpu_adam = has_cpu_adam
        self._work, self._windows, self._slowdown = work, windows, dict(slowdown or {})
        self._prior = rate or _GUESSED_RATE
        self._is_causal = is_causal
        self._rates: dict[tuple[str, str], list[float]] = {}
        self._startups: dict[str, list[float]] = {}
        self._corrections: list[float] = []
        self._prompts: dict[tuple[Any, ...], int] = {}

    @property
    def is_measured(self) -> bool:
        """Whether any step has been timed."""
        return bool(self._rates)

    def steps_seconds(self, config: RunConfig, steps: int = FEWEST_STEPS) -> float:
        """Warm-up and so many steady steps of a run."""
        return (config.untimed_steps + steps) * self.step_seconds(config)

    def compiling_seconds(self, config: RunConfig) -> float:
        """What a run compiles before its first step, which no later run has to."""
        return _COMPILING if config.offload_optimizer == "cpu" and not self._has_cpu_adam else 0.0

    def step_seconds(self, config: RunConfig) -> float:
        """One optimizer step of a run as it is configured."""
        return self._work.step_gflop(config) / self._rate(config)

    def timing_seconds(self, config: RunConfig) -> float:
        """A whole timing: start, warm-up, steady steps, a few batches of validation."""
        batch = config.evaluation_batch
        validated = VALIDATED_BATCHES * batch * self._work.validation_gflop(config) / self._rate(config)
        return self._startup(config) + self.steps_seconds(config, TIMED_STEPS) + validated + SECONDS_AROUND

    def way(self, config: RunConfig) -> RunConfig:
        """The cheapest way to compute a configuration's numbers."""
        return cheapest(config, is_causal=self._is_causal)

    def error_seconds(self, config: RunConfig, fidelity: Fidelity, *, with_prompts: bool | None = None) -> float:
        """A whole error training on the cheapest path with the same numbers.

        Args:
            config: The trial's settings.
            fidelity: How much it trains and validates.
            with_prompts: Whether the prompts are computed too (default: if they were not yet).
        """
        path = self.way(config)
        train, validated = self._samples(path, fidelity)
        keeps = path.prompt_prefix != "recompute"
        steps = math.ceil(train / path.global_batch)
        gflop = steps * self._work.step_gflop(path, keeps_prompts=keeps)
        per_window = self._work.validation_gflop(path) - (self._work.prompt_gflop(path) if keeps else 0.0)
        gflop += validated * per_window
        seconds = gflop / self._rate(path)
        wants_prompts = self._lacks_prompts(path) if with_prompts is None else with_prompts
        if keeps and wants_prompts:
            seconds += self.prompt_seconds(path, fidelity)
        return self._startup(path) + seconds * self._correction() + SECONDS_AROUND

    def prompt_seconds(self, config: RunConfig, fidelity: Fidelity) -> float:
        """Keys and values of all prompts that a training of this fidelity reads."""
        path = self.way(config)
        return sum(self._samples(path, fidelity)) * self._work.prompt_gflop(path) / self._rate(path)

    def control_seconds(self, fidelity: Fidelity) -> float:
        """The control without a language model: hardly more than its start."""
        steps = math.ceil((fidelity.train_samples or self._windows["train"]) / 32)
        return self._startup(None) + 0.02 * steps + SECONDS_AROUND

    def learn_timing(self, config: RunConfig, outcome: Mapping[str, Any]) -> None:
        """Take in what a timing, or a run for both numbers, measured."""
        step = outcome.get("seconds_per_batch")
        if step:
            key = (config.prompt_prefix, config.precision)
            rate = self._work.step_gflop(config) / (float(step) * config.accumulation_steps)
            self._rates.setdefault(key, []).append(rate)
        startup = outcome.get("startup_seconds")
        if startup and self.compiling_seconds(config):
            self._has_cpu_adam = True
        elif startup:
            extra = float(outcome.get("compile_seconds") or 0.0) if config.offload_optimizer != "off" else 0.0
            self._startups.setdefault(config.offload_optimizer, []).append(float(startup) + extra)

    def learn_error(self, config: RunConfig, fidelity: Fidelity, outcome: Mapping[str, Any], seconds: float) -> None:
        """Take in how long an error training was.

        Args:
            config: The trial's settings.
            fidelity: Its fidelity.
            outcome: The worker's result.
            seconds: Its wall clock.
        """
        if outcome.get("state") != State.COMPLETE:
            return
        path = self.way(config)
        expected = self.error_seconds(config, fidelity) - self._startup(path) - SECONDS_AROUND
        startup = float(outcome.get("startup_seconds") or self._startup(path))
        found = max(0.0, seconds - startup - SECONDS_AROUND)
        if expected > 0:
            ratio = found / expected * self._correction()
            self._corrections.append(min(max(ratio, 1 / _MOST_CORRECTION), _MOST_CORRECTION))
        self._prompts[self._prompt_key(path)] = max(self._prompts.get(self._prompt_key(path), 0), path.llm_layers)

    def _samples(self, config: RunConfig, fidelity: Fidelity) -> tuple[int, int]:
        train = fidelity.train_samples or config.train_epochs * self._windows["train"]
        return train, min(fidelity.val_samples or self._windows["validation"], self._windows["validation"])

    def _correction(self) -> float:
        return statistics.median(self._corrections[-5:]) if self._corrections else 1.0

    def _startup(self, config: RunConfig | None) -> float:
        offload = "off" if config is None else config.offload_optimizer
        if found := self._startups.get(offload):
            return statistics.median(found)
        plain = self._startups.get("off")
        compiling = 0.0 if config is None else self.compiling_seconds(config)
        return (statistics.median(plain) if plain else FIRST_STARTUP) + _MORE_STARTUP[offload] + compiling

    def _rate(self, config: RunConfig) -> float:
        """Operations per second of a run, in 1e9: that of runs like it, or that of others, scaled."""
        prefix, precision = config.prompt_prefix, config.precision
        if found := self._rates.get((prefix, precision)):
            return statistics.median(found)
        slowdown = slowdown_of(self._slowdown, precision, prefix)
        scaled = [
            rate * _EFFICIENCY[prefix] / _EFFICIENCY[other] * slowdown_of(self._slowdown, its, other) / slowdown
            for (other, its), rates in self._rates.items()
            for rate in rates
        ]
        return statistics.median(scaled) if scaled else self._prior * _EFFICIENCY[prefix] / slowdown

    def _lacks_prompts(self, path: RunConfig) -> bool:
        return self._prompts.get(self._prompt_key(path), 0) < path.llm_layers

    def _prompt_key(self, path: RunConfig) -> tuple[Any, ...]:
        names = ("prompt", "prompt_digits", "prompt_scope", "precision", "dwt_wavelet", "dwt_prompt_level", "seq_len")
        return tuple(getattr(path, name) for name in names)
