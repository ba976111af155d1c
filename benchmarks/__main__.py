"""`python -m benchmarks NAME [flags]`: runs one benchmark."""

import sys

from benchmarks import NAMES
from benchmarks.runner import find
from timellm.arguments import run_command
from timellm.contract.errors import ExitStatus

if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
    print("usage: python -m benchmarks NAME [flags]; NAME --help lists its flags\n\n" + "\n".join(NAMES))
    raise SystemExit(ExitStatus.DONE if len(sys.argv) > 1 else ExitStatus.WRONG)
run_command(lambda: find(sys.argv[1])().run(sys.argv[2:]), f"benchmarks {sys.argv[1]}")
