import subprocess
import sys
import time

from search.contention import CpuWatch, _children_seconds

SPIN = "import time\nend = time.process_time() + 1.0\nwhile time.process_time() < end: pass"


def test_the_time_of_the_child_itself_is_taken_off(monkeypatch):
    monkeypatch.setattr("search.contention._busy_seconds", lambda: 0.0)
    watch = CpuWatch()
    subprocess.run([sys.executable, "-c", SPIN], check=True)
    assert _children_seconds() - watch._own >= 1.0
    assert watch.other_share() == 0.0


def test_load_of_another_process_is_noticed(monkeypatch):
    busy, own = iter([100.0, 103.0]), iter([10.0, 11.0])
    monkeypatch.setattr("search.contention._busy_seconds", lambda: next(busy))
    monkeypatch.setattr("search.contention._children_seconds", lambda: next(own))
    monkeypatch.setattr("search.contention._cores", lambda: [0, 1])
    clock = iter([0.0, 2.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert CpuWatch().other_share() == 0.5


def test_a_quiet_machine_is_clean(monkeypatch):
    busy, own = iter([100.0, 104.1]), iter([10.0, 14.0])
    monkeypatch.setattr("search.contention._busy_seconds", lambda: next(busy))
    monkeypatch.setattr("search.contention._children_seconds", lambda: next(own))
    monkeypatch.setattr("search.contention._cores", lambda: [0, 1])
    clock = iter([0.0, 2.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert CpuWatch().quality() == "clean"
