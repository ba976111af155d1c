"""Checkpoints hold the trained parameters only: the frozen model is named, not copied.

A checkpoint that can forecast also holds facts of its data and half widths of intervals.
"""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.contract.files import replaced
from timellm.run.facts import Facts
from timellm.run.residuals import KINDS, Calibration

_INTERVALS = "intervals."
"""Starts the names of tensors that are not parameters."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint holds beside its parameters.

    Attributes:
        path: The file.
        config: Settings of the training.
        facts: Data, language model and machine of the training.
        calibration: Half widths of intervals; None where too few validation windows were seen.
    """

    path: Path
    config: RunConfig
    facts: Facts
    calibration: Calibration | None


def save_checkpoint(
    path: Path, model: Any, config: RunConfig, facts: Facts | None = None, calibration: Calibration | None = None
) -> None:
    """Replace the file with the model's trained parameters, the run's settings and what forecasting needs.

    Args:
        path: The file.
        model: The network.
        config: The run's settings.
        facts: What forecasting needs to know; None for a trial of a search.
        calibration: Half widths of intervals.
    """
    tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in model.trained_parameters()}
    metadata = {"config": json.dumps(config.to_dict())}
    if facts is not None and calibration is not None:
        facts = facts.with_interval(calibration.kind, calibration.windows)
        tensors |= {f"{_INTERVALS}{kind}": half_widths for kind, half_widths in calibration.quantiles.items()}
    if facts is not None:
        metadata["facts"] = facts.to_json()
    with replaced(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def load_checkpoint(path: Path, model: Any) -> None:
    """Copy trained parameters into a model of the same settings.

    Raises:
        InputError: If the file is not a checkpoint or does not fit the model.
    """
    trained = dict(model.trained_parameters())
    with _opened(path) as file:
        names = {name for name in file.keys() if not name.startswith(_INTERVALS)}  # noqa: SIM118 (no mapping)
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


def read_checkpoint(path: Path) -> Checkpoint:
    """Settings, facts and intervals of a checkpoint; its parameters are not read.

    Raises:
        InputError: If there is no such file, it is damaged, or it cannot forecast.
    """
    with _opened(path) as file:
        metadata = file.metadata() or {}
        if "facts" not in metadata:
            raise InputError(
                f"{path} must say what it was trained on, but it does not: it is a trial's of a search, or of an "
                "earlier version. Train again with timellm/run_main.py or a recommended command."
            )
        try:
            config = RunConfig.from_dict(json.loads(metadata["config"]))
            facts = Facts.from_dict(json.loads(metadata["facts"]))
        except (KeyError, ValueError) as error:
            raise InputError(f"{path} must hold readable settings and facts, got: {error}.") from error
        calibration = None
        if facts.interval is not None:
            quantiles: dict[str, Tensor] = {kind: file.get_tensor(f"{_INTERVALS}{kind}") for kind in KINDS}
            calibration = Calibration(quantiles, facts.interval, facts.calibration_windows)
    return Checkpoint(path, config, facts, calibration)


def moved(checkpoint: Checkpoint, **settings: Any) -> Checkpoint:
    """A checkpoint read with other settings, such as another folder of the same language model."""
    return dataclasses.replace(checkpoint, config=checkpoint.config.replace(**settings))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "was not found"
        raise InputError(f"The checkpoint {path} {what}. Name the file that a training's last lines name.")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} must be a whole, readable safetensors checkpoint: {error}.") from error
