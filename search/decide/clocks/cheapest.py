"""The cheapest way to compute the same numbers: what an error is trained on, however its trial is timed."""

import functools
from typing import Any

from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.contract.numbers import same_numbers

_CHEAPER: tuple[dict[str, Any], ...] = (
    {"offload_optimizer": "off", "deepspeed_config": None},
    {"num_workers": 0},
    {"compile_mode": "off"},
    {"gradient_checkpointing": False},
    {"attention": "sdpa"},
    {"prompt_prefix": "reuse"},
)
"""Changes that make a run cheaper, or no dearer if only its error counts; each is made if the numbers stay."""


@functools.lru_cache(maxsize=4096)
def cheapest(config: RunConfig, *, is_causal: bool = True) -> RunConfig:
    """The run with the same numbers that trains its error at the least cost.

    Args:
        config: A trial's settings.
        is_causal: Whether the language model reads from left to right, so that its prompts can be reused.

    Returns:
        The settings with every change that leaves the numbers alone; the choice of the optimizer's kernel is fixed to
        what it was, because its default depends on the prompt prefix.
    """
    found = config
    for change in _CHEAPER:
        if "prompt_prefix" in change and not (is_causal and config.prompt_prefix == "recompute"):
            continue
        try:
            changed = found.replace(**change)
        except InputError:
            continue
        kernel = changed.replace(fused_optimizer=config.uses_fused_optimizer)
        for candidate in (changed, kernel):
            if same_numbers(config.to_dict(), candidate.to_dict()):
                found = candidate
                break
    return found


def reason_to_stay_together(config: RunConfig, devices: int = 1) -> str | None:
    """Why time and error of a trial must be measured in one run; None if they may be measured apart.

    Args:
        config: The trial's settings.
        devices: Devices that train together.
    """
    if devices > 1:
        return "several devices train together"
    if config.deepspeed_config is not None:
        return "a DeepSpeed file of the user's own may clip gradients"
    if config.prompt_padding == "published" and (config.prompt_prefix == "store" or config.compile_mode != "off"):
        return "published padding depends on the shape of batches, which store and compilation fix"
    return None
