"""Which file a person means who names a checkpoint, a training's folder, a search or one of its picks."""

from pathlib import Path

from timellm.contract.errors import InputError
from timellm.contract.layout import PICKS

FILE = "checkpoint.safetensors"
"""Name of a checkpoint in a folder of its own."""

_DEFAULT_PICKS = ("balanced", "exact")


def checkpoint_file(path: Path) -> Path:
    """The checkpoint's file.

    Args:
        path: The file; the folder of a training; a search's `recommended/PICK`; or a search's run folder, which means
            the pick of its `recommended/command.sh`.

    Raises:
        InputError: If there is none.
    """
    path = path.expanduser()
    if not path.is_dir():
        return path
    if (path / FILE).is_file():
        return path / FILE
    if path.parent.name == "recommended" and path.name in PICKS:
        raise InputError(
            f"The pick {path.name} was not trained: {path / FILE} was not found. Train it first: "
            f"{_training_command(path, path)}"
        )
    if (path / "recommended").is_dir():
        picks = [path / "recommended" / name for name in _DEFAULT_PICKS]
        found = next((pick for pick in picks if (pick / FILE).is_file()), None)
        if found is not None:
            return found / FILE
        raise InputError(
            f"No recommended pick of {path} was trained. Train one first: "
            f"{_training_command(path / 'recommended', picks[0])}"
        )
    raise InputError(f"The folder {path} holds no {FILE}. Name the file that a training's last lines name.")


def _training_command(folder: Path, pick: Path) -> str:
    return f"bash {folder / 'command.sh'} --checkpoint {(pick / FILE).absolute()}"
