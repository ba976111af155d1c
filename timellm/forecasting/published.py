"""Checkpoints of the published code: a torch file of the whole model, and a settings file for what it does not say."""

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError, first_line
from timellm.data import load_data
from timellm.forecasting.network import ForecastNetwork
from timellm.run.checkpoint import Checkpoint
from timellm.run.facts import Facts, facts_of_data

_MAGIC = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04")
"""How files of torch.save begin: zip archives, and pickles of old versions."""

_FACTS = ("columns", "mean", "std", "frequency", "target", "description")
"""Facts that a settings file may give; without columns they are read from the data that its settings name."""

_NOT_STORED = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq", ".position_ids")
"""Ends of names that older transformers stored and that are computed: they hold nothing that was learnt."""

_BACKBONE = "llm_model."


def is_published(path: Path) -> bool:
    """Whether a file is a torch file."""
    try:
        with path.open("rb") as file:
            return file.read(4).startswith(_MAGIC)
    except OSError:
        return False


def read_published(
    path: Path, settings: str | Path | dict[str, Any] | None, changes: dict[str, str], *, as_trained: bool = False
) -> tuple[Checkpoint, ForecastNetwork]:
    """Load a published checkpoint.

    Args:
        path: The torch file.
        settings: A JSON file or its content: settings of a run (`seq_len`, `llm_model`, `data` and so on), and
            `columns`, `mean`, `std`, `frequency` where no data set is named that tells them.
        changes: Settings of where it runs.
        as_trained: Keep the published path.

    Raises:
        InputError: If the file is damaged or holds more than tensors, or the settings do not fit it.
    """
    values = _read_settings(path, settings)
    tensors = _read_tensors(path)
    given = {name: values.pop(name) for name in _FACTS if name in values and (name != "target" or "columns" in values)}
    config = RunConfig.from_dict({**_published_settings(tensors, values), **values, **changes})
    holds_backbone = any(name.startswith(_BACKBONE) for name in tensors)
    if holds_backbone:
        config = config.replace(llm_weights="random")  # only the shape is needed: every number is in the file
    facts = _facts(config, given, path)
    network = ForecastNetwork(config, facts, as_trained=as_trained)
    _load(path, network.network, tensors, holds_backbone=holds_backbone)
    return Checkpoint(path, config, facts, None), network


def _read_settings(path: Path, settings: str | Path | dict[str, Any] | None) -> dict[str, Any]:
    if settings is None:
        raise InputError(
            f"{path} is a checkpoint of the published code, which does not say how it was trained. Name a JSON file of "
            "its settings with --settings: seq_len, llm_model, and the data or columns, mean and std."
        )
    if isinstance(settings, dict):
        return dict(settings)
    try:
        values = json.loads(Path(settings).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"The settings file {settings} must be readable JSON: {error}.") from error
    if not isinstance(values, dict):
        raise InputError(f"The settings file {settings} must hold a JSON object, got {type(values).__name__}.")
    return values


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise InputError(
            f"{path} must be a whole torch file that holds tensors alone: {first_line(error, 'unreadable')[:200]}"
        ) from error
    if isinstance(found, dict) and isinstance(found.get("module"), dict):
        found = found["module"]  # DeepSpeed's file
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise InputError(f"{path} must hold a state dict of tensors, got {type(found).__name__}.")
    return {str(name).removeprefix("module."): value for name, value in found.items()}


def _published_settings(tensors: dict[str, Tensor], values: dict[str, Any]) -> dict[str, Any]:
    """What the shapes of a published model say of its settings.

    Raises:
        InputError: If it is not a published model.
    """
    names = {
        "mapping": "mapping_layer.weight",
        "patches": "patch_embedding.value_embedding.tokenConv.weight",
        "query": "reprogramming_layer.query_projection.weight",
        "head": "output_projection.linear.weight",
    }
    if missing := [name for name in names.values() if name not in tensors]:
        raise InputError(f"A checkpoint of the published code must hold {missing[0]}, but this one does not.")
    shapes = {key: tensors[name].shape for key, name in names.items()}
    return {
        "num_prototypes": shapes["mapping"][0],
        "d_model": shapes["patches"][0],
        "patch_len": shapes["patches"][1],
        "d_ff": shapes["query"][0] // int(values.get("n_heads", 8)),
        "pred_len": shapes["head"][0],
        "prompt_padding": "published",
    }


def _facts(config: RunConfig, given: dict[str, Any], path: Path) -> Facts:
    backbone = {"name": config.llm_model, "label": config.llm_model, "checksum": None}
    if "columns" not in given:
        facts = facts_of_data(config, load_data(config))
        return dataclasses.replace(facts, backbone=backbone, threads=torch.get_num_threads())
    columns = [str(name) for name in given["columns"]]
    for name in ("mean", "std"):
        if len(given.get(name) or []) != len(columns):
            raise InputError(f"The settings of {path} must give {name}, one number for each of {len(columns)} columns.")
    return Facts(
        columns=tuple(columns),
        trained_columns=tuple(columns),
        target=given.get("target"),
        mean=tuple(map(float, given["mean"])),
        std=tuple(map(float, given["std"])),
        frequency=given.get("frequency"),
        description=given.get("description") or config.prompt_description or "",
        backbone=backbone,
        threads=torch.get_num_threads(),
    )


def _load(path: Path, network: Any, tensors: dict[str, Tensor], *, holds_backbone: bool) -> None:
    """Copy every tensor; a network that is not wholly in the file is refused."""
    tensors = {name: value for name, value in tensors.items() if not name.endswith(_NOT_STORED)}
    wanted = {
        name: value
        for name, value in network.state_dict().items()
        if holds_backbone or not name.startswith((_BACKBONE, "word_embeddings"))
    }
    if not holds_backbone:
        tensors.pop("word_embeddings", None)
    differing = sorted(set(tensors) ^ set(wanted))
    if differing:
        shown = ", ".join(differing[:4])
        raise InputError(f"{path} must hold the model that its settings describe; these parameters differ: {shown}.")
    for name, value in wanted.items():
        if tensors[name].shape != value.shape:
            raise InputError(
                f"{path}: {name} must be {tuple(value.shape)} by its settings, got {tuple(tensors[name].shape)}. "
                "Correct the settings file, or name the right language model."
            )
    network.load_state_dict(tensors, strict=False)
