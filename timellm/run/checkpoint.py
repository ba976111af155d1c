"""Checkpoints hold the trained parameters only: the frozen model is named, not copied."""

import json
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.model.timellm import TimeLLM


def save_checkpoint(path: Path, model: TimeLLM, config: RunConfig) -> None:
    """Replace the file with the model's trained parameters and the run's settings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in model.trained_parameters()}
    temporary = path.with_name(path.name + ".tmp")
    save_file(tensors, temporary, metadata={"config": json.dumps(config.to_dict())})
    os.replace(temporary, path)


def load_checkpoint(path: Path, model: TimeLLM) -> None:
    """Copy trained parameters into a model of the same settings.

    Raises:
        InputError: If the file is not a checkpoint or does not fit the model.
    """
    trained = dict(model.trained_parameters())
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            if names != set(trained):
                differing = ", ".join(sorted(names ^ set(trained))[:4])
                raise InputError(f"{path} must hold this model's trained parameters; these differ: {differing}.")
            for name, parameter in trained.items():
                stored = file.get_tensor(name)
                if stored.shape != parameter.shape:
                    raise InputError(
                        f"{path}: {name} must be {tuple(parameter.shape)}, got {tuple(stored.shape)}. "
                        "Use the settings that the checkpoint was trained with."
                    )
                parameter.data.copy_(stored)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} must be a readable safetensors checkpoint: {error}.") from error
