"""The dated Markdown file of a benchmark: one section per device and model, others' sections kept."""

import datetime
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from benchmarks.harness import FOLDER, amx_sentence
from timellm.machine.environment import describe_machine, git_revision, package_versions

SHOWN_VERSIONS = ("python", "torch", "transformers", "accelerate", "numpy")
GPU_PLACEHOLDER = "GPU"
"""Heading that stands in for GPU sections while there are none."""


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = ["| " + " | ".join(headings) + " |", "| --- |" + " ---: |" * (len(headings) - 1)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def device_heading(device: torch.device, *parts: str) -> str:
    """The heading of a section: kind and name of the device, then what else tells sections apart."""
    machine = describe_machine()
    name = (
        f"GPU: {torch.cuda.get_device_name(device)}"
        if device.type == "cuda"
        else f"CPU: {machine['cpu']}, {torch.get_num_threads()} threads"
    )
    return "; ".join((name, *parts))


def conditions(device: torch.device, *notes: str) -> str:
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
    return "\n".join(f"- {line}" for line in lines)


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
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *kept])


def today() -> str:
    """The date, UTC."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def publish(name: str, output: str | None, introduction: str, heading: str, body: str, gpu_command: str | None) -> Path:
    """Print a section and put it into the benchmark's file; a date in the index follows its own file alone.

    Args:
        name: Name of the benchmark.
        output: Another file to write (default: the one beside the command).
        introduction: Title line and what stands above all sections.
        heading: Heading of the section, without `##`.
        body: Its text.
        gpu_command: What to run where there is a GPU, for the section that stands in while none was measured; None
            for what has nothing to do with a GPU.
    """
    path = Path(output) if output else FOLDER / f"{name}.md"
    print(f"\n## {heading}\n\n{body}\n", flush=True)
    write_section(path, introduction, heading, body, gpu_command)
    if output is None:
        date_in_index(FOLDER / "README.md", name, today())
    return path


def write_section(path: Path, introduction: str, heading: str, body: str, gpu_command: str | None) -> None:
    """Replace one section of a file, or add it; a stand-in tells which command measures a GPU while none was."""
    sections = _sections(path.read_text()) if path.is_file() else {}
    sections.pop(GPU_PLACEHOLDER, None)
    sections[heading] = body.strip()
    if gpu_command and not any(name.startswith("GPU:") for name in sections):
        sections[GPU_PLACEHOLDER] = f"Not measured yet. On a machine with a CUDA device: `{gpu_command}`"
    text = introduction.strip() + "".join(f"\n\n## {name}\n\n{part}" for name, part in sections.items())
    path.write_text(text + "\n")


def date_in_index(index: Path, name: str, date: str) -> None:
    """Set the last cell of the row that links to a benchmark's file."""
    row = re.compile(rf"^(\|.*\({re.escape(name)}\.md\).*\|)[^|]*\|$", re.MULTILINE)
    index.write_text(row.sub(lambda match: f"{match.group(1)} {date} |", index.read_text()))


def _sections(text: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    return {heading: body.strip() for heading, body in zip(parts[::2], parts[1::2], strict=True)}
