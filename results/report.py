"""Command line of the results: `python results/report.py report runs/NAME`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; see `--help`.

    Returns:
        The exit status: 0 done, 1 nothing usable came out, 2 wrong usage or input.
    """
    from results.commands import run

    return run(sys.argv[1:] if arguments is None else list(arguments))


def command() -> NoReturn:
    """The command `timellm-report`."""
    from timellm.contract.errors import print_any_text

    print_any_text()
    raise SystemExit(main())


if __name__ == "__main__":
    command()
