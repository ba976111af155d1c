import os

import pytest

from search.setup import hardware
from timellm.machine import contention, cores, environment, process


@pytest.fixture
def eight_cores(monkeypatch, tmp_path):
    """A machine of eight cores whose control group's files lie in this folder."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "CONTROL_GROUP", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("content", "count"), [("max 100000", 8), ("200000 100000", 2), ("250000 100000", 2), ("50000 100000", 1), ("?", 8)]
)
def test_a_control_group_grants_fewer_cores(eight_cores, content, count):
    (eight_cores / "cpu.max").write_text(content)
    assert cores.usable_cores() == count


def test_a_control_group_of_the_first_version_counts_too(eight_cores):
    folder = eight_cores / "cpu"
    folder.mkdir()
    (folder / "cpu.cfs_period_us").write_text("100000")
    (folder / "cpu.cfs_quota_us").write_text("300000")
    assert cores.usable_cores() == 3
    (folder / "cpu.cfs_quota_us").write_text("-1")
    assert cores.usable_cores() == 8


def test_a_recommended_command_trains_on_as_many_threads_as_the_search_under_a_quota(eight_cores, monkeypatch):
    (eight_cores / "cpu.max").write_text("200000 100000")
    started = {}
    monkeypatch.setattr(os, "execve", lambda program, words, variables: started.update(variables))
    for name in (*process.ALLOCATOR, "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)

    process.restart_with_environment()

    assert started["OMP_NUM_THREADS"] == "2"
    assert environment.describe_machine()["cores"] == 2
    assert hardware.usable_cores() == 2


def test_load_beyond_the_quota_disturbs_nobody(eight_cores, monkeypatch):
    (eight_cores / "cpu.max").write_text("200000 100000")
    seconds = iter([0.0, 60.0, 0.0, 75.0])  # six of eight cores are busy with others for 10 s, then 7.5 of them
    monkeypatch.setattr(contention, "busy_seconds", lambda: next(seconds))
    monkeypatch.setattr(contention, "own_seconds", lambda pid, parent: 0.0)
    monkeypatch.setattr(contention, "children_seconds", lambda parent: 0.0)
    clock = iter([0.0, 10.0, 0.0, 10.0])
    monkeypatch.setattr(contention.time, "monotonic", lambda: next(clock))

    assert contention.CpuWatch().other_share(1) == 0.0
    assert contention.CpuWatch().other_share(1) == pytest.approx(0.75)


def test_memory_is_the_control_groups_where_that_is_less(eight_cores):
    (eight_cores / "memory.max").write_text(str(2**30))
    assert cores.usable_memory_gib() == 1.0
    (eight_cores / "memory.max").write_text("max")
    assert cores.usable_memory_gib() > 1.0
