import pytest
import torch

from tests.timellm.tiny_runs import set_up, tiny_config
from timellm.model import devices
from timellm.model.mapping import MappingLayer, filled_operands, with_room

FORMATS = [torch.float32, torch.bfloat16]


def layer_and_words(dtype):
    torch.manual_seed(0)
    return MappingLayer(30, 6), torch.randn(30, 8).to(dtype)


def gradient(layer, words, factor):
    (layer.prototypes(words) * factor).sum().backward()
    return layer.weight.grad


@pytest.mark.parametrize("dtype", FORMATS)
def test_prototypes_and_gradients_are_those_of_a_linear_layer(dtype):
    layer, words = layer_and_words(dtype)
    found = layer.prototypes(words)
    expected = torch.nn.functional.linear(words.t().float(), layer.weight, layer.bias).t()
    tolerance = 1e-6 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=tolerance)
    mine = torch.autograd.grad(found.float().sum(), [layer.weight, layer.bias])
    theirs = torch.autograd.grad(expected.sum(), [layer.weight, layer.bias])
    for one, other in zip(mine, theirs, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", FORMATS)
def test_a_dropped_gradient_leaves_its_memory_to_the_next(dtype):
    layer, words = layer_and_words(dtype)
    first = gradient(layer, words, 1.0)
    place, before = first.data_ptr(), first.clone()
    del first
    layer.drop_gradient()
    assert layer.weight.grad is None
    held = [torch.empty(6, 30) for _ in range(8)]  # would take a place that was free
    second = gradient(layer, words, 2.0)
    assert second.data_ptr() == place
    assert place not in {block.data_ptr() for block in held}
    torch.testing.assert_close(second, 2 * before)


def test_a_gradient_that_is_kept_is_added_to():
    layer, words = layer_and_words(torch.float32)
    before = gradient(layer, words, 1.0).clone()
    layer.drop_gradient()
    gradient(layer, words, 1.0)
    torch.testing.assert_close(gradient(layer, words, 3.0), 4 * before)


def test_every_update_of_a_run_uses_one_memory(tmp_path):
    prepared, stepper, _ = set_up(tiny_config(tmp_path, prompt_prefix="reuse"))
    layer, places, held = prepared.model.mapping_layer, set(), []
    for _ in range(3):
        stepper.train(prepared.windows.passes[0][:8])
        assert layer.weight.grad is None
        places.add(layer.spare.tensor.data_ptr())
        held.append(torch.empty_like(layer.weight))  # would take a place that was free
    assert len(places) == 1


@pytest.mark.parametrize("compile_mode", ["off", "default"])
def test_no_memory_is_kept_that_the_next_step_would_not_take(tmp_path, compile_mode):
    prepared, stepper, _ = set_up(tiny_config(tmp_path, prompt_prefix="recompute", compile_mode=compile_mode))
    stepper.train(prepared.windows.passes[0][:8])
    assert prepared.model.mapping_layer.spare.tensor is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpus_product_over_a_filled_vocabulary_is_the_same(monkeypatch, dtype):
    torch.manual_seed(0)
    layer, embeddings = MappingLayer(101, 7), torch.randn(101, 16).to(dtype)
    plain = layer.prototypes(embeddings)
    factor = torch.randn(plain.shape)
    (plain.float() * factor).sum().backward()
    gradients = [part.grad.clone() for part in layer.parameters()]
    layer.zero_grad()
    monkeypatch.setattr(devices, "launches_kernels", lambda device: True)
    filled = with_room(embeddings)
    read = []
    addmm = torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda *given: (read.append(given[1].shape), addmm(*given))[1])
    ours = layer.prototypes(filled)
    assert read == [(16, 101 if dtype == torch.float32 else 128)]
    (ours.float() * factor).sum().backward()
    tolerance = {"rtol": 1e-6, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1.6e-2, "atol": 1e-2}
    torch.testing.assert_close(ours, plain, **tolerance)
    for mine, theirs in zip(layer.parameters(), gradients, strict=True):
        torch.testing.assert_close(mine.grad, theirs, **tolerance)
        assert mine.grad.dtype == torch.float32


def test_zeros_behind_the_vocabulary_change_no_product():
    torch.manual_seed(0)
    weight, embeddings = torch.randn(7, 101), torch.randn(101, 16).bfloat16()
    rows, words = filled_operands(weight, with_room(embeddings))
    assert rows.shape[1] == len(words) == 128
    expected = weight.bfloat16().double() @ embeddings.double()
    torch.testing.assert_close(rows.double() @ words.double(), expected, rtol=1e-6, atol=1e-6)
