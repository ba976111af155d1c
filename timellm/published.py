"""Flags as published scripts and other launchers write them, turned into settings of a run."""

import argparse
import os
from collections.abc import Sequence
from typing import Any

from timellm.backbones.registry import KNOWN
from timellm.contract.datasets import DATA_SETS

ZERO_SHOT_FLAGS = ("data_pretrain", "data_path_pretrain")
_M4 = (
    "M4 is not trained here: it is many short series of their own lengths, scored by SMAPE. "
    "This trains on long series: --task_name long_term_forecast with --data of {names}."
)


def unsupported(words: Sequence[str]) -> str | None:
    """One sentence on a published script that is of another task as a whole; None for all others.

    Args:
        words: The command line, before it is parsed: its other flags would each be refused too.
    """
    given = dict(zip(words, [*words[1:], ""], strict=False))
    given |= {name: value for name, _, value in (word.partition("=") for word in words) if value}
    if any(f"--{name}" in given for name in ZERO_SHOT_FLAGS):
        source, other = given.get("--data_pretrain", "A"), given.get("--data_path", "B.csv")
        return (
            f"Zero-shot takes two commands: train with --data {source} (and no --data_pretrain), then "
            f"python timellm/forecast.py CHECKPOINT --data_path {other} --other_data --backtest N."
        )
    if given.get("--data", "").lower() == "m4" or given.get("--task_name") == "short_term_forecast":
        return _M4.format(names=", ".join(DATA_SETS))
    return None


def apply_description(given: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """`--prompt_domain 1`: the published prompt bank's text for the data set.

    Args:
        given: Every parsed flag.
        values: Settings of the run, changed in place.

    Returns:
        Problems.
    """
    domain = given.get("prompt_domain", 0)
    if domain == 0:
        return []
    if domain != 1:
        return [f"prompt_domain must be 0 or 1, got {domain}. Use 1 for the data set's published description."]
    if "prompt_description" in given:
        return ["--prompt_domain 1 and --prompt_description contradict each other. Drop one of the two."]
    name = given.get("data", "nyc-weather")
    known = DATA_SETS.get(name)
    if known is None or known.published_description is None:
        return [
            f"--prompt_domain 1 needs a data set with a published description, got {name}. "
            "Write yours with --prompt_description."
        ]
    values["prompt_description"] = known.published_description
    return []


def apply_language_model(values: dict[str, Any]) -> list[str]:
    """A folder alone names the model; published scripts mean LLaMA where they name none."""
    if "llm_model" in values:
        return []
    if "llm_path" in values:
        values["llm_model"] = values.pop("llm_path")
        return []
    default, published = (KNOWN[name].shape["num_hidden_layers"] for name in ("smollm2-135m", "llama"))
    layers = values.get("llm_layers", 0)
    if not default < layers <= published:
        return []
    return [
        f"llm_layers {layers} is more than the {default} of the default smollm2-135m: published scripts mean LLaMA-7B "
        f"({published} layers) where they name no model, and none is given. Name its folder with --llm_path DIR, or "
        f"use --llm_layers {default} or fewer."
    ]


def add_launcher_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that launchers add to a command of their own accord."""
    group = parser.add_argument_group("Flags of launchers")
    hidden: dict[str, Any] = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
    group.add_argument("--local_rank", "--local-rank", type=int, **hidden)
    group.add_argument("--deepspeed", nargs="?", const="", **hidden)


def apply_launcher_flags(given: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """`--local_rank` of torch.distributed.launch and deepspeed, `--deepspeed [FILE]`; returns problems."""
    rank = given.get("local_rank", -1)
    if rank >= 0:
        os.environ.setdefault("LOCAL_RANK", str(rank))
    named = given.get("deepspeed")
    if not named:
        if named == "" and "deepspeed_config" not in values:
            values.setdefault("offload_optimizer", "none")
        return []
    if values.get("deepspeed_config", named) != named:
        return [f"--deepspeed {named} and --deepspeed_config {values['deepspeed_config']} differ. Drop one of the two."]
    values["deepspeed_config"] = named
    return []
