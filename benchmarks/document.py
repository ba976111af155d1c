"""What heads a section: the device, the machine, the versions, the command, the date."""

import datetime
import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

import torch

from benchmarks.harness import amx_sentence
from benchmarks.record import Notes
from timellm.machine.environment import describe_machine, git_revision, package_versions

SHOWN_VERSIONS = ("python", "torch", "transformers", "accelerate", "numpy")


def device_heading(device: torch.device, *parts: str) -> str:
    """The heading of a section: kind and name of the device, then what else tells sections apart."""
    machine = describe_machine()
    name = (
        f"GPU: {torch.cuda.get_device_name(device)}"
        if device.type == "cuda"
        else f"CPU: {machine['cpu']}, {torch.get_num_threads()} threads"
    )
    return "; ".join((name, *parts))


def conditions(device: torch.device, *notes: str) -> Notes:
    """Machine, versions, command and date, as the list that opens a section."""
    machine, versions = describe_machine(), package_versions()
    shown = ", ".join(f"{name} {versions[name]}" for name in SHOWN_VERSIONS if name in versions)
    gpu = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    lines = [
        f"Machine: {gpu}{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; {amx_sentence()}",
        f"Versions: {shown}; revision {git_revision() or 'unknown'}",
        f"Command: `{command_line()}`",
        f"Date: {today()}",
        *notes,
    ]
    return Notes(tuple(lines))


def rounding_notes(names: Iterable[str]) -> list[str]:
    """A condition that names whose products were computed in fp32 of rounded operands; empty where nobody's were."""
    distinct = ", ".join(dict.fromkeys(names))
    return [f"Products of rounded operands, computed in fp32: {distinct}"] if distinct else []


def command_line() -> str:
    """The command of this process, without where its output goes."""
    words, kept = sys.argv[1:], []
    while words:
        word = words.pop(0)
        if word == "--output":
            words.pop(0)
        elif not word.startswith("--output="):
            kept.append(word)
    return shlex.join(["python", "-m", "benchmarks", *kept])


def today() -> str:
    """The date, UTC."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def date_in_index(index: Path, name: str, date: str) -> None:
    """Set the last cell of the row that links to a benchmark's file."""
    row = re.compile(rf"^(\|.*\({re.escape(name)}\.md\).*\|)[^|]*\|$", re.MULTILINE)
    index.write_text(row.sub(lambda match: f"{match.group(1)} {date} |", index.read_text()))
