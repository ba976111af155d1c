"""Command line of the results: `python results/report.py report runs/NAME`."""

import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; see `--help`.

    Returns:
        The exit status: 0 done, 1 nothing usable came out, 2 wrong usage or input.
    """
    _make_importable()
    from results.commands import run

    return run(sys.argv[1:] if arguments is None else list(arguments))


def _make_importable() -> None:
    """Put the project's root on the path in place of this folder, whose modules are no top-level ones."""
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
    if str(here.parent) not in sys.path:
        sys.path.insert(0, str(here.parent))


if __name__ == "__main__":
    sys.exit(main())
