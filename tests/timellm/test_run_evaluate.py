"""How many windows a GPU evaluates at once, seen on a CPU."""

import types

import pytest
import torch

from tests.timellm.tiny_runs import CPU, set_up, tiny_config
from timellm.run.evaluate import batch_that_fits, evaluate

GPU = torch.device("cuda:0")


class Network:
    """Has room for so many windows; stands for the model and for what cuts its batches."""

    training = True

    def __init__(self, room):
        self.room, self.tried = room, []

    def eval(self):
        self.training = False

    def train(self, mode=True):
        self.training = mode

    def prototypes(self):
        return None

    def batches(self, groups):
        return (types.SimpleNamespace(x=group, prompt=None) for group in groups)

    def __call__(self, x, prompt, prototypes):
        self.tried.append(len(x))
        if len(x) > self.room:
            raise torch.OutOfMemoryError


@pytest.fixture
def limits(monkeypatch):
    """A GPU of 1000 bytes of which training has taken 600; the limits that the allocator was given."""
    given = []
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 600)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(total_memory=1000))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, device: given.append(share))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    return given


@pytest.mark.parametrize(("room", "size"), [(9999, 512), (200, 128), (40, 32), (1, 8)])
def test_a_gpu_evaluates_as_many_windows_as_fit_into_the_memory_of_training(tmp_path, limits, room, size):
    network = Network(room)
    found = batch_that_fits(tiny_config(tmp_path), network, network.batches, torch.arange(100), GPU)
    assert found == size
    assert limits == [0.6, 1.0]
    assert network.training


@pytest.mark.parametrize(
    ("device", "changes", "size"),
    [
        (CPU, {}, 8),
        (GPU, {"eval_batch_size": 24}, 24),
        (GPU, {"compile_mode": "default"}, 8),
        (GPU, {"prompt_padding": "published"}, 8),
    ],
)
def test_elsewhere_the_batch_is_what_the_settings_say(tmp_path, limits, device, changes, size):
    network = Network(9999)
    config = tiny_config(tmp_path, **changes)
    assert batch_that_fits(config, network, network.batches, torch.arange(100), device) == size
    assert not network.tried


def test_a_large_batch_gives_the_errors_of_a_small_one(tmp_path):
    prepared, _, _ = set_up(tiny_config(tmp_path, prompt_prefix="reuse"))
    scores = [
        evaluate(
            prepared.model,
            prepared.validation,
            torch.arange(len(prepared.data.validation)),
            size,
            CPU,
            shares_prototypes=True,
        )
        for size in (8, 512)
    ]
    assert scores[0].mse == pytest.approx(scores[1].mse, rel=1e-6)
    assert scores[0].mae == pytest.approx(scores[1].mae, rel=1e-6)
