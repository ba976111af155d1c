"""Weight files of a transformers folder: which they are, and their tensors by name, read on demand."""

import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timellm.contract.errors import InputError, one_line

if TYPE_CHECKING:
    import torch

TensorReaders = dict[str, "Callable[[], torch.Tensor]"]

_LAYOUTS = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
_DAMAGED = "is damaged or not a weight file"


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a model's tensors: safetensors if there are any, else PyTorch's own format.

    Raises:
        InputError: If there are none, or an index names a file that is missing.
    """
    for single, index in _LAYOUTS:
        if (folder / single).is_file():
            return [folder / single]
        if (folder / index).is_file():
            return _shards(folder / index)
    raise InputError(
        f"A language model's folder must hold model.safetensors or pytorch_model.bin, got {folder} without them. "
        "Save the model there with save_pretrained."
    )


def tensor_readers(files: list[Path]) -> TensorReaders:
    """A function for each stored tensor that reads it; a tensor nobody asks for is not read.

    Raises:
        InputError: If a file is damaged, or holds anything but tensors.
    """
    readers: TensorReaders = {}
    for file in files:
        readers |= _safetensors_readers(file) if file.suffix == ".safetensors" else _bin_readers(file)
    return readers


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InputError: If it is not one, or holds a number that is not finite.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=_no_constant)
    except RecursionError as error:
        raise InputError(f"{path} must be JSON of a few levels, got too many. Save the model again.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} must be a readable JSON file, got: {error}. Save the model again.") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold a JSON object, got {type(values).__name__}. Save the model again.")
    return values


def _no_constant(name: str) -> float:
    raise ValueError(f"{name}, which is no number")


def _shards(index: Path) -> list[Path]:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise InputError(f"{index} must list the weight files in weight_map, got none. Save the model again.")
    files = sorted({str(name) for name in names.values()})
    strays = [name for name in files if Path(name).name != name]
    if strays:
        raise InputError(f"{index} must name files of its own folder, got {', '.join(strays)}. Save the model again.")
    missing = [name for name in files if not (index.parent / name).is_file()]
    if missing:
        raise InputError(
            f"{index.parent} must hold every weight file of its index, got no {', '.join(missing)}. "
            "Copy the whole folder again."
        )
    return [index.parent / name for name in files]


def _safetensors_readers(file: Path) -> TensorReaders:
    from safetensors import SafetensorError, safe_open

    try:
        handle = safe_open(file, framework="pt")
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise InputError(f"{file} {_DAMAGED} ({error}). Copy it again.") from error
    return {name: partial(_get_tensor, handle, name, file) for name in handle.keys()}  # noqa: SIM118


def _get_tensor(handle: Any, name: str, file: Path) -> "torch.Tensor":
    try:
        return handle.get_tensor(name)
    except Exception as error:  # of a type that torch does not have, or a header that promises more than there is
        reason = one_line(error)
        raise InputError(f"{file} must hold tensors that torch reads, but {name}: {reason}. Copy it again.") from error


def _bin_readers(file: Path) -> TensorReaders:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what matters about a damaged file is said below
            state = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{file} must hold tensors alone, got other objects or damaged data, and was not loaded. "
            "Save the model as safetensors with save_pretrained."
        ) from error
    except Exception as error:  # IndexError, KeyError, struct.error: whatever damaged data lead a pickle to
        reason = one_line(error, type(error).__name__)
        raise InputError(f"{file} {_DAMAGED} ({reason}). Copy it again.") from error
    if not isinstance(state, dict):
        raise InputError(f"{file} must hold named tensors, got {type(state).__name__}. Use a transformers folder.")
    tensors = {str(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}
    return {name: partial(_identity, tensor) for name, tensor in tensors.items()}


def _identity(tensor: "torch.Tensor") -> "torch.Tensor":
    return tensor
