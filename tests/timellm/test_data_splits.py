import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timellm.data import Split


@st.composite
def splits(draw: st.DrawFn) -> Split:
    seq_len, pred_len = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rows = seq_len + pred_len + draw(st.integers(0, 20))
    channels = draw(st.integers(1, 5))
    return Split(torch.randn(rows, channels, generator=torch.Generator().manual_seed(rows)), seq_len, pred_len)


@given(splits())
def test_every_gathered_window_equals_a_slice_of_its_channel(split: Split):
    x, y = split.gather(torch.arange(len(split)))
    assert x.shape == (len(split), split.seq_len)
    assert y.shape == (len(split), split.pred_len)
    for index in range(len(split)):
        channel, start = divmod(index, split.windows_per_channel)
        series = split.values[:, channel]
        middle = start + split.seq_len
        assert torch.equal(x[index], series[start:middle])
        assert torch.equal(y[index], series[middle : middle + split.pred_len])


@given(splits())
def test_last_window_of_every_channel_ends_at_the_last_row(split: Split):
    assert len(split) == split.channels * (len(split.values) - split.seq_len - split.pred_len + 1)
    last = torch.arange(1, split.channels + 1) * split.windows_per_channel - 1
    assert torch.equal(split.gather(last)[1][:, -1], split.values[-1])


def test_gather_takes_any_order_and_repeats():
    split = Split(torch.randn(30, 3), 5, 2)
    indices = torch.tensor([40, 0, 40, 7])
    x, y = split.gather(indices)
    assert torch.equal(x[0], x[2])
    assert torch.equal(y[3], split.gather(torch.tensor([7]))[1][0])


def test_window_beyond_the_last_is_refused():
    split = Split(torch.randn(30, 3), 5, 2)
    with pytest.raises(IndexError):
        split.gather(torch.tensor([len(split)]))


def test_windows_are_not_copied_before_they_are_asked_for():
    split = Split(torch.randn(50_000, 1), 512, 512)
    held = split.values.untyped_storage().nbytes()
    assert held == 50_000 * 4
    assert len(pickle.dumps(split)) < held + 4096


def test_split_survives_the_way_to_another_process():
    split = Split(torch.randn(30, 3), 5, 2)
    copy = pickle.loads(pickle.dumps(split))
    indices = torch.arange(len(split))
    assert torch.equal(copy.gather(indices)[0], split.gather(indices)[0])
    assert len(copy) == len(split)


def test_channels_stay_contiguous_on_another_device():
    split = Split(torch.randn(30, 3), 5, 2).to("cpu")
    assert split.values.stride(0) == 1


@pytest.mark.gpu
def test_gather_on_the_gpu_equals_gather_on_the_cpu():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device; run on a machine with one")
    split = Split(torch.randn(30, 3), 5, 2)
    indices = torch.randperm(len(split))
    assert torch.equal(split.to("cuda").gather(indices)[0].cpu(), split.gather(indices)[0])


def test_split_shorter_than_one_window_is_refused():
    with pytest.raises(ValueError, match="at least seq_len \\+ pred_len = 20 rows, got 19"):
        Split(torch.randn(19, 1), 10, 10)


def test_values_that_are_not_rows_of_channels_are_refused():
    with pytest.raises(ValueError, match="rows, channels"):
        Split(torch.randn(30), 5, 2)
