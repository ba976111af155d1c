import itertools
import shutil

import numpy as np
import pytest
import torch

from tests.timellm.tiny_runs import tiny_config
from timellm import progress
from timellm.contract.errors import InputError
from timellm.data import EpochOrders, load_data, training_order
from timellm.prompts import filling
from timellm.prompts.cache import load_or_build
from timellm.prompts.filling import watched
from timellm.run.preparation import MOST_TIMED, choose_windows

CHUNK = [[1, 2, 3]] * 10


def test_progress_says_what_is_done_and_how_long_the_rest_takes(tmp_path, monkeypatch, capsys):
    clock = itertools.count(step=10)
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    assert len(list(watched([CHUNK] * 10, 100, 2, tmp_path))) == 10
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "tokenising prompts: 10 of 100 (10 %), 1 min 30 s left"
    assert len(lines) < 6


def test_a_short_work_is_done_in_silence(tmp_path, capsys):
    assert list(watched([CHUNK], 10, 2, tmp_path)) == [CHUNK]
    assert list(watched([CHUNK], None, 2, tmp_path)) == [CHUNK]
    assert capsys.readouterr() == ("", "")


def test_prompts_that_do_not_fit_on_the_disk_are_refused_before_they_are_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=2**30)
    monkeypatch.setattr(filling.shutil, "disk_usage", lambda _: usage)
    asked = []

    def chunks():
        for number in range(1000):
            asked.append(number)
            yield [[1] * 120] * 4096

    with pytest.raises(InputError, match=r"14,400,000 windows need about 7\.\d GiB in .*, which has 1\.0 GiB free"):
        load_or_build(tmp_path / "key", chunks, dtype=np.uint16, pad_id=0, prompts=14_400_000)
    assert asked == [0]
    assert not (tmp_path / "key").exists()
    assert not list(tmp_path.glob("key.*/"))


def test_a_whole_run_makes_no_epoch_s_order_before_its_time(tmp_path):
    config = tiny_config(tmp_path, train_epochs=1000, batch_size=7)
    windows = choose_windows(config, load_data(config), 5)
    assert isinstance(windows.passes, EpochOrders)
    assert windows.steps(7) == 1000 * -(-windows.epoch_windows // 7)
    few = choose_windows(config.replace(train_samples=20), load_data(config), 5)
    assert few.steps(7) == 3


def test_a_step_of_any_size_is_timed_on_windows_that_have_an_end(tmp_path):
    config = tiny_config(tmp_path)
    windows = choose_windows(config.replace(train_samples=20), load_data(config), 10**12)
    assert len(windows.timing) == MOST_TIMED
    assert len(windows.passes[0]) == 20


@pytest.mark.parametrize("train_samples", [None, 20, 2000])
def test_chosen_windows_are_the_first_of_their_orders_and_hold_no_more(tmp_path, train_samples):
    config = tiny_config(tmp_path, train_epochs=3)
    data = load_data(config)
    windows = choose_windows(config.replace(train_samples=train_samples), data, 5)
    orders = torch.cat([training_order(len(data.train), epoch, config.seed) for epoch in range(9)])
    assert torch.equal(windows.timing, orders[:5])
    assert torch.equal(torch.cat(list(windows.passes)), orders[: train_samples or 3 * len(data.train)])
    for part in (windows.timing, *windows.passes):
        assert part.untyped_storage().nbytes() == part.nbytes
