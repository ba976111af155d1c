"""A training step in places that never change: on a CPU it runs as it is, on a GPU it is replayed as a graph."""

import copy
from unittest import mock

import pytest
import torch

from tests.timellm.tiny_runs import set_up, tiny_config
from timellm.contract.errors import InputError
from timellm.measure.launches import LaunchCounter


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def curve(config, epochs=1):
    prepared, stepper, losses = set_up(config)
    without_dropout(prepared.model)
    for _ in range(epochs):
        stepper.train(prepared.windows.passes[0])
    return prepared, stepper, losses


@pytest.mark.parametrize("settings", [{"prompt_prefix": "reuse", "lradj": "TST"}, {"prompt_prefix": "store"}])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_static_step_gives_the_curve_of_an_eager_one(folder, settings, attention):
    config = tiny_config(folder, attention=attention, train_samples=44, **settings)  # the last batch is smaller
    _, _, eager = curve(config, epochs=2)
    _, stepper, static = curve(config.replace(step_graph=True), epochs=2)
    assert len(static) == 12
    assert stepper.static.taken == 10
    assert static == pytest.approx(eager, rel=1e-6)


@pytest.mark.parametrize("prompt_prefix", ["reuse", "store"])
def test_what_a_static_step_reads_and_writes_keeps_its_place_over_fifty_steps(folder, prompt_prefix):
    config = tiny_config(folder, prompt_prefix=prompt_prefix, batch_size=2, train_samples=4, step_graph=True)
    prepared, stepper, _ = set_up(config)
    static, engine, places = stepper.static, stepper.engine, []
    call = static.__call__

    def places_of():
        buffers, optimizer = static.buffers, engine.optimizer
        tensors = {f"weight {name}": parameter for name, parameter in prepared.model.named_parameters()}
        tensors |= {f"buffer {name}": buffer for name, buffer in prepared.model.named_buffers()}
        trained = dict(prepared.model.trained_parameters())
        tensors |= {f"gradient {name}": parameter.grad for name, parameter in trained.items()}
        for name, parameter in trained.items():
            tensors |= {f"{key} {name}": value for key, value in optimizer.state[parameter].items()}
        tensors |= {"x": buffers.x, "y": buffers.y, "ids": buffers.prompt.ids, "lengths": buffers.prompt.lengths}
        if buffers.prompt.memory is not None:
            tensors["memory"] = buffers.prompt.memory.whole
        tensors |= {"rate": optimizer.param_groups[0]["lr"], "loss": static.loss}
        return {name: tensor.data_ptr() for name, tensor in tensors.items()}

    stepper.static = mock.Mock(side_effect=lambda batch: (call(batch), places.append(places_of()))[0], fits=static.fits)
    for _ in range(25):
        stepper.train(prepared.windows.passes[0])
    assert len(places) == 50
    assert all(place == places[0] for place in places)


def test_a_static_step_asks_the_device_for_nothing(folder):
    config = tiny_config(folder, prompt_prefix="reuse", train_samples=8, step_graph=True)
    prepared, stepper, _ = set_up(config)
    stepper.train(prepared.windows.passes[0])
    with LaunchCounter() as counter:
        stepper.update(copy.copy(stepper.static.buffers))
    assert counter.total > 100
    assert not counter.waits


def test_what_a_graph_cannot_hold_is_refused_all_at_once(folder):
    with pytest.raises(InputError) as refused:
        tiny_config(folder, step_graph=True, accumulation_steps=2, precision="fp16", compile_mode="default")
    text = str(refused.value)
    for needed in ("prompt_prefix reuse or store", "accumulation_steps 1", "compile_mode off", "got fp16"):
        assert needed in text
