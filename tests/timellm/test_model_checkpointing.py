"""Gradient checkpointing of the backbone's blocks, their inputs kept on the device or in host memory."""

import json

import pytest
import torch

from tests.timellm.tiny_runs import CPU, tiny_config
from timellm.run.preparation import prepare

BACKBONES = [
    ("gpt2", "recompute"),
    ("gpt2", "reuse"),
    ("llama", "recompute"),
    ("llama", "reuse"),
    ("bert", "recompute"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture
def packed(monkeypatch):
    """Shapes of the tensors that host memory was asked to keep."""
    shapes = []

    class Recorded(torch.autograd.graph.save_on_cpu):
        def __init__(self, **given):
            super().__init__(**given)
            pack = self.pack_hook
            self.pack_hook = lambda tensor: (shapes.append(tuple(tensor.shape)), pack(tensor))[1]

    monkeypatch.setattr(torch.autograd.graph, "save_on_cpu", Recorded)
    return shapes


def on_host(folder):
    path = folder / "ds.json"
    path.write_text(json.dumps({"activation_checkpointing": {"cpu_checkpointing": True}}))
    return {"gradient_checkpointing": True, "deepspeed_config": str(path)}


def step(config):
    """Tokens of a prompt, gradients, and bytes that autograd holds for the backward pass of a batch; no dropout."""
    prepared = prepare(config, CPU, 1)
    model, held = prepared.model.eval(), {}
    batch = next(iter(prepared.train([torch.arange(8)])))
    frozen = {parameter.data_ptr() for parameter in model.parameters()}

    def hold(tensor):
        if tensor.data_ptr() not in frozen:
            held[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        loss = (model(batch.x, batch.prompt) - batch.y).square().mean()
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.trained_parameters()}
    return batch.prompt.ids.shape[1], gradients, sum(held.values())


def assert_equal(gradients, expected):
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-6, atol=1e-8, msg=name)


@pytest.mark.parametrize(("kind", "prompt_prefix"), BACKBONES)
def test_checkpointing_holds_less_and_gives_the_same_gradients(folder, kind, prompt_prefix):
    config = tiny_config(folder, kind, prompt_prefix=prompt_prefix)
    _, expected, plain = step(config)
    _, gradients, checkpointed = step(config.replace(gradient_checkpointing=True))
    assert_equal(gradients, expected)
    assert checkpointed < 0.8 * plain


@pytest.mark.parametrize(("kind", "prompt_prefix"), BACKBONES)
def test_cpu_checkpointing_keeps_each_blocks_input_in_host_memory(folder, packed, kind, prompt_prefix):
    config = tiny_config(folder, kind, prompt_prefix=prompt_prefix)
    tokens, expected, _ = step(config.replace(gradient_checkpointing=True))
    assert packed == []
    _, gradients, _ = step(config.replace(**on_host(folder)))
    read = config.patches if prompt_prefix == "reuse" else tokens + config.patches
    assert packed == [(8, read, 48)] * config.llm_layers
    assert_equal(gradients, expected)


@pytest.mark.gpu
def test_a_gpu_holds_less_with_cpu_checkpointing(folder):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    device = torch.device("cuda")
    held, gradients = [], []
    for config in (tiny_config(folder, gradient_checkpointing=True), tiny_config(folder, **on_host(folder))):
        prepared = prepare(config.replace(device="cuda"), device, 1)
        model = prepared.model.eval()
        batch = next(iter(prepared.train([torch.arange(128)])))
        before = torch.cuda.memory_allocated()
        forecast = model(batch.x, batch.prompt)
        held.append(torch.cuda.memory_allocated() - before)
        forecast.square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in model.trained_parameters()})
    assert held[1] < held[0]
    assert_equal(gradients[1], gradients[0])


@pytest.mark.parametrize("backbone_dropout", [False, True])
def test_the_random_state_is_kept_only_where_the_backbone_draws(folder, monkeypatch, backbone_dropout):
    kept = []

    def recorded(block, *inputs, preserve_rng_state, **named):
        kept.append(preserve_rng_state)
        return block(*inputs)

    monkeypatch.setattr("timellm.model.checkpointing.checkpoint", recorded)
    config = tiny_config(folder, gradient_checkpointing=True, backbone_dropout=backbone_dropout, train_samples=8)
    prepared = prepare(config, CPU, 0)
    batch = next(prepared.train([prepared.windows.passes[0][:2]]))
    prepared.model(batch.x, batch.prompt)
    assert kept == 2 * [backbone_dropout]
