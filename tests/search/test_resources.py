import pytest

from search.setup.resources import plan_resources, share_cluster
from spaces import InputError
from timellm.contract.config import RunConfig
from timellm.machine.cores import usable_memory_gib


def plan(**changes):
    asked = {"max_concurrent": None, "gpus_per_trial": None, "max_memory_gib": None}
    return plan_resources(**{"cores": 8, "gpus": 0, "device_memory_gib": None, **asked, **changes})


def test_on_a_cpu_one_trial_has_every_core_and_most_of_the_memory():
    found = plan()
    assert (found.cores, found.gpus, found.max_concurrent) == (8, 0, 1)
    assert found.max_memory_gib == pytest.approx(0.9 * usable_memory_gib(), abs=0.01)
    assert found.threads(RunConfig(num_workers=2)) == 8
    assert found.request(RunConfig()) == {"CPU": 8, "GPU": 0}


def test_on_gpus_there_is_one_trial_each_with_cores_for_its_loader():
    found = plan(gpus=2, device_memory_gib=80.0)
    assert (found.cores, found.gpus, found.max_concurrent, found.max_memory_gib) == (4, 1, 2, 80.0)
    assert found.request(RunConfig(num_workers=2)) == {"CPU": 3, "GPU": 1}
    assert found.request(RunConfig(num_workers=8)) == {"CPU": 4, "GPU": 1}


def test_trials_that_run_together_share_cores_and_memory():
    found = plan(max_concurrent=4)
    assert (found.cores, found.max_concurrent) == (2, 4)
    assert found.max_memory_gib == pytest.approx(0.9 * usable_memory_gib() / 4, abs=0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpus_per_trial": 1.0}, r"--gpus_per_trial must be at most the machine's GPUs \(0\), got 1"),
        ({"max_concurrent": 9}, r"--max_concurrent must be at most the machine's cores \(8\), got 9"),
        ({"gpus": 1, "max_concurrent": 2}, r"needs more than the machine's 1"),
    ],
)
def test_more_than_there_is_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        plan(**changes)


def test_a_cluster_gives_every_trial_the_same():
    found, notes = share_cluster(plan(), [{"CPU": 4.0}, {"CPU": 8.0}, {"memory": 1.0}], None)
    assert (found.cores, found.max_concurrent) == (4, 2)
    assert "Every trial uses 4 cores" in notes[1]
    with pytest.raises(InputError, match="must have a node with a CPU and 1 GPUs, but none of its 1 nodes has"):
        share_cluster(plan(gpus=1, device_memory_gib=8.0), [{"CPU": 4.0}], None)
