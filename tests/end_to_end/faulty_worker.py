"""The real worker with a fault at its second training step: FAKE_FAULTS says which, as in the fake worker."""

import itertools
import json
import os
import resource
import signal
import sys
from pathlib import Path

import psutil
import torch

from tests.search.fake_worker import fault
from timellm import worker
from timellm.run.stepping import Stepper


def go_wrong(what: str) -> None:
    """Do it."""
    if what == "cuda out of memory":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nDetails.")
    if what == "exception":
        raise RuntimeError("shapes cannot be multiplied")
    if what == "sigkill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "loader killed":
        for child in psutil.Process().children():
            child.kill()
    if what == "disk full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def main() -> int:
    """Be a worker, for a while a good one."""
    job = Path(sys.argv[1])
    asked = json.loads(job.read_text())
    what = fault(asked["config"], asked["clock"])
    if what == "memory limit":
        values = json.loads(job.read_text())
        job.write_text(json.dumps({**values, "max_memory_gib": 0.05}))
    step, steps = Stepper.take_step, itertools.count()

    def faulty_step(self, *arguments):
        if what and next(steps) == 1:
            go_wrong(what)
        return step(self, *arguments)

    Stepper.take_step = faulty_step
    return worker.main([str(job)])


if __name__ == "__main__":
    sys.exit(main())
