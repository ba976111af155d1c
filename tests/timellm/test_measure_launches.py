import torch

from timellm.measure.launches import LaunchCounter


def test_what_computes_is_counted_and_views_are_not():
    x = torch.randn(4, 6)
    with LaunchCounter() as counter:
        y = (x.t() @ x).view(2, 18)[:, :3].transpose(0, 1)
        y.add_(1).relu()
    assert counter.launches == {"mm": 1, "add_": 1, "relu": 1}
    assert counter.total == 3
    assert not counter.waits


def test_what_makes_the_process_wait_is_seen():
    x = torch.randn(4)
    with LaunchCounter() as counter:
        x.sum().item()
        x.nonzero()
        x[x > 0]
        x.to("meta")
        x.to("meta", non_blocking=True)
        torch.empty(4, device="meta").copy_(x, non_blocking=True)
    assert counter.waits == {"_local_scalar_dense": 1, "nonzero": 1, "index": 1, "_to_copy": 1}


def test_main_memory_can_be_left_out():
    x, there = torch.randn(4), torch.randn(4, device="meta")
    with LaunchCounter("meta") as counter:
        x.sum().item()
        there.add_(1)
    assert (counter.launches, counter.waits) == ({"add_": 1}, {})
