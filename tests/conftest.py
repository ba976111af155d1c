"""What every test shares, and how the suite is shared out among processes (`pytest -n auto`)."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from tests.cores import give_all_cores, take_a_share_of_the_cores
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

take_a_share_of_the_cores()


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Handlers of signals end with the test: a command that is called here sets its own for the rest of its process.

    Processes that later tests fork would inherit them, and would not end when they are told to.
    """
    yield
    for number, handler in HANDLERS.items():
        signal.signal(number, handler)


@pytest.fixture
def all_cores() -> Iterator[None]:
    """All cores of the machine, for a test that needs two."""
    with give_all_cores():
        yield


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
