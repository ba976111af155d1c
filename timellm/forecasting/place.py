"""Which file a person means who names a checkpoint, a training's folder, a search or one of its picks."""

import shlex
from pathlib import Path

from timellm.contract.errors import InputError
from timellm.contract.layout import CHECKPOINT, PICKS, PickFolder, RunFolder


def checkpoint_file(path: Path) -> Path:
    """The checkpoint's file.

    Args:
        path: The file; the folder of a training; a search's `recommended/PICK`; or a search's run folder, which means
            the pick of its `recommended/command.sh`.

    Raises:
        InputError: If there is none.
    """
    try:
        path = path.expanduser()
    except RuntimeError as error:
        raise InputError(f"A path must have a user's name after ~, got {path}. Write the whole path.") from error
    if not path.is_dir():
        return path
    if (path / CHECKPOINT).is_file():
        return path / CHECKPOINT
    folder = RunFolder(path)
    if path.parent.name == folder.recommended.name and path.name in PICKS:
        raise InputError(_untrained(PickFolder(path)))
    if folder.recommended.is_dir():
        return _recommended(folder)
    raise InputError(f"The folder {path} holds no {CHECKPOINT}. Name the file that a training's last lines name.")


def _recommended(folder: RunFolder) -> Path:
    """The checkpoint of the pick that `recommended/command.sh` trains: the two commands are the same text."""
    command = folder.recommended_command
    if not command.is_file():
        raise InputError(f"The search {folder.path} recommends nothing yet, so there is nothing to forecast with.")
    picks = [folder.recommendation(name) for name in PICKS]
    pick = next(
        (one for one in picks if one.command.is_file() and one.command.read_bytes() == command.read_bytes()), None
    )
    if pick is None:
        raise InputError(f"{command} no longer belongs to a pick. Name the folder of a pick beside it.")
    if not pick.checkpoint.is_file():
        raise InputError(_untrained(pick))
    return pick.checkpoint


def _untrained(pick: PickFolder) -> str:
    return (
        f"The pick {pick.path.name} was not trained: {pick.checkpoint} was not found. Train it first: "
        f"bash {shlex.quote(str(pick.command))}"
    )
