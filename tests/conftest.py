"""What every test shares, and how the suite is shared out among processes (`pytest -n auto`)."""

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from timellm.machine.cores import usable_cores

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
"""How long an example takes says nothing: other work may share the machine."""

MOST_WORKERS = 4
"""A search, its Ray and its trials are some ten processes; more of them at once than this help nobody."""
LONGEST_FIRST = ("tests/end_to_end/", "tests/search/", "tests/timellm/")
"""Folders in the order in which they are begun, so that no long file is left for the end."""

SHARE_A_SEARCH = ("documented_commands", "report", "search")
"""Files of `tests/end_to_end` that look at the one real search."""

HANDLERS = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
"""What these signals do where no command has changed it."""

if "PYTEST_XDIST_WORKER" in os.environ:  # as many tests as cores run at once, so each has one thread
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Handlers of signals end with the test: a command that is called here sets its own for the rest of its process.

    Processes that later tests fork would inherit them, and would not end when they are told to.
    """
    yield
    for number, handler in HANDLERS.items():
        signal.signal(number, handler)


class Scheduling(LoadFileScheduling):
    """Gives whole files to the workers, and the files that look at the one real search to one of them."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        shared = (f"tests/end_to_end/test_{name}.py" for name in SHARE_A_SEARCH)
        return "the real search" if file in shared else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Processes of `-n auto`: one for each usable core, within reason."""
    return min(usable_cores(), MOST_WORKERS)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log) -> Scheduling:
    """Files stay whole, whatever `--dist` says: their fixtures are what takes long."""
    config.option.loadscopereorder = False
    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the folders that take longest."""
    items.sort(key=lambda item: [not item.nodeid.startswith(folder) for folder in LONGEST_FIRST])
