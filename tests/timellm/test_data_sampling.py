import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timellm.data import EpochOrders, Split, sampling, stratified_subset, training_order


@given(st.integers(1, 500), st.integers(0, 20), st.integers(0, 2**32 - 1))
def test_training_order_visits_every_window_once(windows: int, epoch: int, seed: int):
    order = training_order(windows, epoch, seed)
    assert order.dtype == torch.int64
    assert torch.equal(order.sort().values, torch.arange(windows))


def test_training_order_depends_on_seed_and_epoch_alone():
    torch.manual_seed(1)
    first = training_order(1000, 3, 2021)
    torch.manual_seed(2)
    assert torch.equal(first, training_order(1000, 3, 2021))
    others = [training_order(1000, 4, 2021), training_order(1000, 3, 2022), training_order(1000, 2021, 3)]
    assert not any(torch.equal(first, other) for other in others)


def test_training_order_leaves_torch_global_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    training_order(100, 0, 1)
    assert torch.equal(torch.rand(1), expected)


def test_the_order_of_an_epoch_is_made_once_while_it_is_used(monkeypatch):
    made = []
    monkeypatch.setattr(sampling, "training_order", lambda *given: (made.append(given), training_order(*given))[1])
    orders = EpochOrders(1000, 5, 2021)
    first = orders[0]
    assert orders[0] is first
    assert torch.equal(orders[1], orders[-4])
    assert made == [(1000, 0, 2021), (1000, 1, 2021)]
    assert torch.equal(orders[0], first)


def test_training_order_is_the_same_in_every_release():
    assert training_order(10, 0, 2021).tolist() == [8, 0, 2, 1, 4, 9, 5, 7, 3, 6]


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 300))
def test_stratified_subset_is_distinct_sorted_and_even_over_channels(windows: int, channels: int, samples: int):
    split = Split(torch.zeros(windows + 1, channels), 1, 1)
    subset = stratified_subset(split, samples)
    assert len(subset) == min(samples, len(split))
    assert torch.equal(subset, torch.unique(subset))
    assert int(subset[0]) >= 0
    assert int(subset[-1]) < len(split)
    counts = torch.bincount(subset // windows, minlength=channels)
    assert counts.max() - counts.min() <= 1


@given(st.integers(50, 400), st.integers(1, 7), st.integers(4, 40))
def test_stratified_subset_is_even_over_time_in_every_channel(windows: int, channels: int, per_channel: int):
    split = Split(torch.zeros(windows + 1, channels), 1, 1)
    subset = stratified_subset(split, per_channel * channels).view(channels, per_channel) % windows
    step = windows / per_channel
    gaps = subset.diff(dim=1)
    assert gaps.min() >= int(step)
    assert gaps.max() <= int(step) + 1
    assert subset[:, 0].max() <= step
    assert subset[:, -1].min() >= windows - step - 1


def test_channels_of_a_stratified_subset_look_at_different_times():
    subset = stratified_subset(Split(torch.zeros(1001, 7), 1, 1), 7)
    assert len(torch.unique(subset % 1000)) == 7


def test_stratified_subset_holds_all_windows_when_there_are_no_more():
    split = Split(torch.zeros(11, 2), 1, 1)
    assert torch.equal(stratified_subset(split, 10_000), torch.arange(20))


def test_empty_subset_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        stratified_subset(Split(torch.zeros(11, 2), 1, 1), 0)


def test_epochs_orders_are_made_when_they_are_asked_for(monkeypatch):
    orders = EpochOrders(windows=50, epochs=4, seed=3)
    assert len(orders) == 4
    for epoch, order in enumerate(orders):
        assert torch.equal(order, training_order(50, epoch, 3))
    assert torch.equal(orders[-1], training_order(50, 3, 3))
    assert [order.tolist() for order in orders[1:3]] == [training_order(50, epoch, 3).tolist() for epoch in (1, 2)]
    with pytest.raises(IndexError, match="epoch must be below 4"):
        orders[4]
    monkeypatch.setattr("timellm.data.sampling.training_order", lambda *_: pytest.fail("made too early"))
    assert len(EpochOrders(windows=14_400_000, epochs=100, seed=0)) == 100
