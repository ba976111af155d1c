"""Holds a run's settings against its data and its language model before anything is started."""

from collections.abc import Mapping, Sequence
from typing import Any

from timellm.backbones import check_backbone, check_positions, check_weights, load_tokenizer, resolve_backbone
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.data import SeriesData, load_data, stratified_subset
from timellm.machine.environment import choose_device
from timellm.model.wavelet_embedding import check_wavelet_embedding
from timellm.optimize.deepspeed_config import deepspeed_notes
from timellm.prompts import check_wavelet_prompt, tokenising_cost, tokenized_windows

_PROMPT_SETTINGS = (
    "prompt", "prompt_digits", "prompt_scope", "prompt_prefix", "dwt_wavelet", "dwt_prompt_level", "seq_len", "stride",
    "patch_len",
)  # fmt: skip
SAMPLED_PROMPTS = 24
"""Windows of each split whose prompts are written before a start, to see whether they fit the model."""


def check_run(config: RunConfig, variants: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """What a manifest records of the data and the language model.

    Args:
        config: The run.
        variants: Settings of other runs, as far as they differ, whose wavelets and layers are checked too; of more
            layers than the model has, all are.

    Returns:
        `data`, `backbone`, `deepspeed` where there is such a file, and `prompts`, whose notes say what tokenising takes
        before the run's first step, where that is more than a minute.

    Raises:
        InputError: With every problem that data, language model, wavelets, device and DeepSpeed file show.
    """
    problems: list[str] = []
    facts: dict[str, Any] = {}
    wavelets = (_check_prompt, _check_embedding)
    checks = [(check, config) for check in (_check_data, _check_backbone, *wavelets, _check_device, _check_deepspeed)]
    runs = [config, *(config.replace(**variant) for variant in variants)]
    checks += [(check, run) for run in runs[1:] for check in (*wavelets, _check_layers)]
    for check, run in checks:
        try:
            facts |= check(run)
        except InputError as error:
            problems += error.problems
    notes: list[str] = []
    if not problems:
        problems, notes = _prompt_problems_and_notes(runs)
    if problems:
        raise InputError(dict.fromkeys(problems))
    return facts | ({"prompts": {"notes": notes}} if notes else {})


def _check_data(config: RunConfig) -> dict[str, Any]:
    data = load_data(config)
    return {
        "data": {
            "name": data.name,
            "checksum": data.checksum,
            "columns": list(data.columns),
            "notes": list(data.notes),
            "windows": {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)},
        }
    }


def _check_backbone(config: RunConfig) -> dict[str, Any]:
    if config.has_no_backbone:
        return {"backbone": {"name": "none", "label": "no language model", "checksum": None}}
    source = resolve_backbone(config.llm_model, config.llm_path, config.llm_weights)
    check_backbone(config, source)
    check_weights(source, config.llm_layers)
    return {
        "backbone": {
            "name": source.name,
            "label": source.label,
            "kind": source.kind,
            "checksum": source.checksum,
            "hidden_size": source.hidden_size,
            "layers": source.layers,
            "vocabulary": source.vocabulary,
        }
    }


def _check_layers(config: RunConfig) -> dict[str, Any]:
    """The weights of a variant's layers, where the model as such was found sound."""
    if not config.has_no_backbone:
        source = resolve_backbone(config.llm_model, config.llm_path, config.llm_weights)
        check_weights(source, min(config.llm_layers, source.layers))
    return {}


def _prompt_problems_and_notes(runs: Sequence[RunConfig]) -> tuple[list[str], list[str]]:
    """What is wrong with the length of prompts, and what those of the first run cost, by a sample of windows."""
    problems: list[str] = []
    notes: list[str] = []
    measured = set()
    data: SeriesData | None = None
    for run in runs:
        key = tuple(getattr(run, name) for name in _PROMPT_SETTINGS)
        if run.has_no_backbone or key in measured:
            continue
        measured.add(key)
        try:
            source = resolve_backbone(run.llm_model, run.llm_path, run.llm_weights)
            if run.prompt == "none":
                check_positions(run, source, 0)
                continue
            if data is None or run.seq_len != data.train.seq_len:
                data = load_data(run)
            tokenizer = load_tokenizer(source)
            for samples in (1, SAMPLED_PROMPTS):  # one tells of a description that is far too long
                check_positions(run, source, _longest_prompt(run, data, tokenizer, samples))
            if run is runs[0]:
                notes += filter(None, [tokenising_cost(run, data, tokenizer).note()])
        except InputError as error:
            problems += error.problems
    return problems, notes


def _longest_prompt(config: RunConfig, data: SeriesData, tokenizer: Any, samples: int) -> int:
    """Tokens of the longest prompt of so many windows of each split."""
    longest = 0
    for split in (data.train, data.validation, data.test):
        prompts = tokenized_windows(
            config, split, tokenizer, description=data.description, indices=stratified_subset(split, samples)
        )
        longest = max(longest, int(prompts.lengths.max()))
    return longest


def _check_prompt(config: RunConfig) -> dict[str, Any]:
    check_wavelet_prompt(config)
    return {}


def _check_embedding(config: RunConfig) -> dict[str, Any]:
    check_wavelet_embedding(config)
    return {}


def _check_device(config: RunConfig) -> dict[str, Any]:
    choose_device(config)
    return {}


def _check_deepspeed(config: RunConfig) -> dict[str, Any]:
    if config.deepspeed_config is None:
        return {}
    return {"deepspeed": {"notes": deepspeed_notes(config)}}
