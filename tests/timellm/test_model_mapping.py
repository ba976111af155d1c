import pytest
import torch

from tests.timellm.tiny_runs import set_up, tiny_config
from timellm.model.mapping import MappingLayer

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
        places.add(layer._spare.tensor.data_ptr())
        held.append(torch.empty_like(layer.weight))  # would take a place that was free
    assert len(places) == 1


@pytest.mark.parametrize("compile_mode", ["off", "default"])
def test_no_memory_is_kept_that_the_next_step_would_not_take(tmp_path, compile_mode):
    prepared, stepper, _ = set_up(tiny_config(tmp_path, prompt_prefix="recompute", compile_mode=compile_mode))
    stepper.train(prepared.windows.passes[0][:8])
    assert prepared.model.mapping_layer._spare.tensor is None
