import numpy as np
import pytest
import torch

from tests.timellm.tiny_runs import tiny_config
from tests.timellm.two_processes import train, train_together
from timellm.run.stepping import shares

GLOBAL_BATCH = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


@pytest.mark.parametrize("windows", [16, 9, 5, 2, 1])
def test_every_window_of_a_global_batch_has_one_process_and_each_as_many_micro_batches(windows):
    group = torch.arange(100, 100 + windows)
    dealt = [shares(group, rank, 2, 4) for rank in range(2)]
    assert len(dealt[0]) == len(dealt[1]) > 0
    assert all(len(part) <= 4 for parts in dealt for part in parts)
    assert sorted(torch.cat([part for parts in dealt for part in parts]).tolist()) == group.tolist()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"gradient_checkpointing": True}, id="ddp"),
        pytest.param({"prompt_prefix": "store", "lr_scaling": "linear", "lradj": "TST"}, id="ddp-store"),
        pytest.param({"offload_optimizer": "none"}, id="zero2", marks=pytest.mark.deepspeed),
    ],
)
def test_two_processes_train_as_one_does_at_the_same_global_batch(folder, tmp_path, changes):
    common = {"accumulation_steps": 2, "max_grad_norm": 1.0, **changes}
    alone = {"offload_optimizer": "off"}
    windows = [2 * GLOBAL_BATCH + 9, GLOBAL_BATCH + 1]  # both end in a step of which one process has less
    one = train(tiny_config(folder, **{**common, **alone}, batch_size=8), windows)
    first, second = train_together(tiny_config(folder, **common, batch_size=4), windows, tmp_path)
    assert len(one["losses"]) == 5
    np.testing.assert_allclose(first["losses"], one["losses"], rtol=1e-5)
    assert first["losses"] == second["losses"]
    assert first["mse"] == pytest.approx(one["mse"], rel=1e-5)
    assert (first["mse"], first["mae"]) == (second["mse"], second["mae"])
    assert sorted(first["seen"] + second["seen"]) == list(range(one["windows"])) == one["seen"]
