import subprocess
import sys
import time

import psutil
import pytest

from tests.waiting import wait_for
from timellm.machine import contention
from timellm.machine.contention import CpuWatch, LoadWatch, own_seconds

SPIN = "import time\nend = time.process_time() + 1.0\nwhile time.process_time() < end: pass"
NOBODY = 2**30
"""No process has this id."""


def test_the_time_of_the_child_itself_is_taken_off(monkeypatch):
    monkeypatch.setattr("timellm.machine.contention.busy_seconds", lambda: 0.0)
    watch, before = CpuWatch(), own_seconds(NOBODY)
    child = subprocess.Popen([sys.executable, "-c", SPIN])
    child.wait()
    assert own_seconds(child.pid) - before >= 1.0
    assert watch.other_share(child.pid) == 0.0


def test_the_time_of_a_child_does_not_jump_when_it_ends():
    before = own_seconds(NOBODY)
    child = subprocess.Popen([sys.executable, "-c", SPIN])
    wait_for(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
    ended = own_seconds(child.pid)
    child.wait()
    assert ended - before >= 1.0
    assert own_seconds(child.pid) == pytest.approx(ended, abs=0.05)


def test_the_time_of_a_worker_goes_to_the_process_that_waits_for_it():
    server = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SPIN!r}]); input()"
    with subprocess.Popen([sys.executable, "-c", server], stdin=subprocess.PIPE) as process:
        wait_for(lambda: own_seconds(NOBODY, process.pid) >= 1.0)
        process.communicate(b"\n")
    assert own_seconds(NOBODY, process.pid) == 0.0


@pytest.fixture
def readings(monkeypatch):
    """Seconds that two cores were busy, those of the child, and the time, each reading the next one."""

    def use(busy, own, clock):
        monkeypatch.setattr(contention, "busy_seconds", iter(busy).__next__)
        taken = iter(own)
        monkeypatch.setattr(contention, "children_seconds", lambda parent: next(taken))
        monkeypatch.setattr(contention, "allowed_cores", lambda: [0, 1])
        monkeypatch.setattr(contention, "usable_cores", lambda: 2)
        monkeypatch.setattr(time, "monotonic", iter(clock).__next__)

    return use


def test_load_of_another_process_is_noticed(readings):
    readings(busy=[100.0, 103.0], own=[10.0, 11.0], clock=[0.0, 2.0])
    assert CpuWatch().other_share(NOBODY) == 0.5


def test_load_on_cores_that_are_left_to_others_does_not_count(readings):
    readings(busy=[100.0, 103.0], own=[10.0, 11.0], clock=[0.0, 2.0])
    assert CpuWatch(spare_cores=1).other_share(NOBODY) == 0.0


def test_load_before_the_timed_part_is_forgotten(readings):
    readings(busy=[100.0, 110.0, 114.1], own=[10.0, 10.0, 14.0], clock=[0.0, 5.0, 7.0])
    watch = CpuWatch()
    watch.begin(NOBODY)
    assert watch.other_share(NOBODY) < 0.1


def test_a_quiet_machine_is_clean(readings):
    readings(busy=[100.0, 104.1], own=[10.0, 14.0], clock=[0.0, 2.0])
    assert LoadWatch().quality(NOBODY) == "clean"


def test_what_ray_does_to_keep_itself_going_is_not_other_load(readings, monkeypatch):
    upkeep = iter([{1: 1.0}, {1: 1.5, 2: 9.0}, {1: 2.0, 3: 0.5}])  # one process ends, another begins
    monkeypatch.setattr(contention, "upkeep_seconds", lambda search: next(upkeep))
    readings(busy=[100.0, 101.0, 104.0], own=[10.0, 10.0, 12.0], clock=[0.0, 1.0, 3.0])
    watch = CpuWatch(search=NOBODY)
    watch.begin(NOBODY)
    assert watch.other_share(NOBODY) == 0.0


def test_upkeep_is_that_of_a_searchs_children_in_its_session():
    spin = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SPIN!r}], start_new_session=LEADS); input()"
    for leads in (False, True):
        command = [sys.executable, "-c", spin.replace("LEADS", str(leads))]
        with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as search:
            wait_for(lambda: psutil.Process(search.pid).children(recursive=True))
            seen = [0.0]
            while psutil.Process(search.pid).children(recursive=True):
                seen += contention.upkeep_seconds(search.pid).values()
            search.communicate(b"\n")
        assert (max(seen) > 0.2) is not leads
    assert contention.upkeep_seconds(NOBODY) == {}
