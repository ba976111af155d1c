"""How much a run computes, from the shape of the language model: costs are predicted from it before they are measured.

Only ratios count: what a machine does in a second is learnt from the runs that were measured
(`search.decide.spend.costs`).
A product of n numbers with m weights counts 2 m n operations; a frozen layer's backward pass costs as much as its
forward pass, because no gradient of its weights is computed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from timellm.contract.config import RunConfig

PROMPT_TOKENS, OWN_TOKENS = 161, 94
"""Tokens of the official prompt as SmolLM2 splits it, and those of them that differ from window to window."""
_WEIGHTS_PER_LAYER = 11.0
"""Weights of a layer relative to the square of the hidden size: 10.7 in SmolLM2, 12 in GPT-2."""
_KEYS = 1.17
"""A token's share for attending to the keys and values before it, and for the head."""
_GIGA = 1e9


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """Operations of a run on one language model."""

    hidden_size: int = 576
    """Of the language model."""
    vocabulary: int = 49152
    """Of the language model."""

    @classmethod
    def of(cls, backbone: Mapping[str, Any]) -> "Work":
        """For the language model that a manifest describes; SmolLM2's shape where it says nothing."""
        known = {name: int(backbone[name]) for name in ("hidden_size", "vocabulary") if backbone.get(name)}
        return cls(**known)

    def step_gflop(self, config: RunConfig, *, keeps_prompts: bool = False) -> float:
        """Operations of an optimizer step, in 1e9.

        Args:
            config: The run's settings.
            keeps_prompts: Whether the prompts' keys and values are there already.
        """
        mappings = 1 if config.shares_prototypes else config.accumulation_steps
        return mappings * self.mapping_gflop(config) + config.global_batch * self._window(config, keeps_prompts)

    def mapping_gflop(self, config: RunConfig) -> float:
        """Operations of the layer that maps the vocabulary to prototypes, forward and backward, in 1e9."""
        return 4 * self.vocabulary * config.num_prototypes * self.hidden_size / _GIGA

    def prompt_gflop(self, config: RunConfig) -> float:
        """Operations of one window's prompt, once, in 1e9: the part that it does not share."""
        own = 0 if config.prompt == "none" else OWN_TOKENS
        return own * self._token(config)

    def validation_gflop(self, config: RunConfig) -> float:
        """Operations of a validated window whose prompt is there already or is computed with it, in 1e9."""
        patches = config.patches * _KEYS * self._token(config)
        if config.prompt_prefix == "recompute":
            mapping = self.mapping_gflop(config) / 2 / config.evaluation_batch
            return mapping + patches + self._prompt(config) * self._token(config)
        return patches + self.prompt_gflop(config)

    def _window(self, config: RunConfig, keeps_prompts: bool) -> float:
        passes = 3 if config.gradient_checkpointing else 2
        trained = passes * config.patches * _KEYS * self._token(config)
        if config.prompt_prefix == "recompute":
            return trained + passes * self._prompt(config) * self._token(config)
        if keeps_prompts or config.prompt_prefix == "store":
            return trained
        return trained + self.prompt_gflop(config)

    def _prompt(self, config: RunConfig) -> int:
        return 0 if config.prompt == "none" else PROMPT_TOKENS

    def _token(self, config: RunConfig) -> float:
        """Operations of one token in the layers that are kept, forward, in 1e9."""
        return 2 * _WEIGHTS_PER_LAYER * self.hidden_size**2 * config.llm_layers / _GIGA
