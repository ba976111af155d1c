"""Forecasts without a language model, shown beside the front."""

from collections.abc import Mapping
from typing import Any

from timellm.contract.columns import State
from timellm.contract.config import RunConfig

NAME = "no language model"
"""The trained control: patches, one attention layer, head."""


def control_config(baseline: RunConfig) -> RunConfig:
    """The baseline with its language model left out, and with it all that serves the language model."""
    return baseline.replace(
        llm_model="none",
        llm_path=None,
        llm_dim=None,
        prompt_prefix="recompute",
        precision="fp32",
        offload_optimizer="off",
        num_workers=0,
        tune_layer_norm=False,
        gradient_checkpointing=False,
    )


def controls_of(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Name and validation MSE of each control, from the result of a run with `control_config`.

    Args:
        result: The worker's result; it holds the naive forecasts even if the training failed.
    """
    naive = [{"name": name, "val_mse": error} for name, error in (result.get("naive_mse") or {}).items()]
    if result["state"] != State.COMPLETE or result.get("val_mse") is None:
        return naive
    seconds = result.get("seconds_per_epoch")
    return [{"name": NAME, "val_mse": result["val_mse"], "seconds_per_epoch": seconds}, *naive]
