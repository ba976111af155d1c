"""Prompt and patches in one pass, as a GPU takes them, computed on a CPU."""

from unittest.mock import Mock

import numpy as np
import pytest
from torch.nn import functional as F

from tests.timellm.test_model_golden import ZERO_IN_THEORY
from tests.timellm.tiny_runs import set_up, tiny_config
from timellm.model import devices, frozen, one_pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("one_pass")


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Switches the one pass on, and products of bf16 operands to bf16."""

    def switch(on=True):
        monkeypatch.setattr(one_pass, "devices", Mock(wraps=devices, launches_kernels=lambda device: on))
        monkeypatch.setattr("timellm.run.preparation.product_dtype", lambda dtype, device: dtype)

    return switch


def reuse(folder, **changes):
    settings = {"prompt_prefix": "reuse", "attention": "sdpa", "dropout": 0.0, "fused_optimizer": False}
    return tiny_config(folder, **settings | changes)


def step(config, steps=1):
    """Losses of the first steps, and the gradients of the last, before its update."""
    prepared, stepper, losses = set_up(config)
    gradients = {}
    update = stepper.engine.step

    def kept():
        gradients.update({name: part.grad.clone() for name, part in prepared.model.trained_parameters()})
        update()

    stepper.engine.step = kept
    prepared.model.reprogramming_layer.dropout.p = 0.0
    stepper.train(prepared.windows.passes[0][: steps * config.global_batch])
    return np.array(losses), gradients


def relative(gradients, expected):
    """Largest error of a gradient, relative to its norm."""
    return max(
        float((gradients[name] - part).norm() / part.norm())
        for name, part in expected.items()
        if name != ZERO_IN_THEORY
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"prompt": "none"},
        {"prompt_padding": "published"},
        {"llm_layers": 1},
        {"prompt_prefix": "store", "prompt_store_gib": 1.0},
        {"prompt_prefix": "store", "prompt_store_gib": 0.001},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())) or "reuse",
)
def test_one_pass_gives_the_gradients_and_the_curve_of_two(folder, as_on_a_gpu, changes):
    config = reuse(folder, **changes)
    as_on_a_gpu(False)
    losses, gradients = step(config, 6)
    as_on_a_gpu()
    ours, our_gradients = step(config, 6)
    np.testing.assert_allclose(ours, losses, rtol=1e-5)
    assert relative(our_gradients, gradients) < 1e-4


def test_kernels_may_write_row_by_row(folder, as_on_a_gpu, monkeypatch):
    as_on_a_gpu()
    configs = [reuse(folder), reuse(folder, prompt_prefix="store")]
    expected = [step(config) for config in configs]
    attend = F.scaled_dot_product_attention

    def attend_by_row(*given, **named):
        return attend(*given, **named).transpose(1, 2).contiguous().transpose(1, 2)

    monkeypatch.setattr(F, "scaled_dot_product_attention", attend_by_row)
    for config, (losses, gradients) in zip(configs, expected, strict=True):
        ours, our_gradients = step(config)
        np.testing.assert_allclose(ours, losses, rtol=1e-6)
        assert relative(our_gradients, gradients) < 1e-5


def test_zeros_of_a_step_stay_where_they_are_while_smaller_steps_have_their_own(folder):
    prepared, _, _ = set_up(reuse(folder))
    blocks = frozen.frozen_blocks(prepared.model.llm_model, prepared.model.compute_dtype)
    first = blocks.zeros_for((6, 8, 48))
    smaller = blocks.zeros_for((6, 4, 48))
    assert blocks.zeros_for((6, 8, 48)) is first
    assert smaller.shape == (6, 4, 48)


def test_one_pass_is_taken(folder, as_on_a_gpu, monkeypatch):
    taken = []
    read = one_pass.read_window
    monkeypatch.setattr(one_pass, "read_window", lambda *given: (taken.append(1), read(*given))[1])
    as_on_a_gpu()
    step(reuse(folder))
    step(reuse(folder, attention="eager"))
    step(reuse(folder, gradient_checkpointing=True))
    assert taken == [1]


def test_gradients_in_bf16_are_as_close_to_those_in_fp32(folder, as_on_a_gpu):
    _, exact = step(reuse(folder, llm_layers=2))
    as_on_a_gpu(False)
    _, before = step(reuse(folder, llm_layers=2, precision="bf16"))
    as_on_a_gpu()
    _, ours = step(reuse(folder, llm_layers=2, precision="bf16"))
    assert relative(ours, exact) < 1.25 * relative(before, exact)


@pytest.mark.parametrize(
    "changes", [{}, {"prompt_prefix": "store"}, {"prompt": "none"}], ids=["reuse", "store", "none"]
)
def test_a_llama_with_joint_products_and_few_kernels_for_rotation_gives_the_same_curve(folder, monkeypatch, changes):
    config = reuse(folder, kind="llama", **changes)
    losses, gradients = step(config, 6)
    monkeypatch.setattr(frozen, "devices", Mock(wraps=devices, launches_kernels=lambda device: True))
    ours, our_gradients = step(config, 6)
    np.testing.assert_allclose(ours, losses, rtol=1e-5)
    assert relative(our_gradients, gradients) < 1e-4


def test_joint_weights_of_a_llama_take_no_memory_of_their_own(folder, monkeypatch):
    monkeypatch.setattr(frozen, "devices", Mock(wraps=devices, launches_kernels=lambda device: True))
    prepared, stepper, _ = set_up(reuse(folder, kind="llama"))
    stepper.train(prepared.windows.passes[0][:8])
    layer = prepared.model.llm_model.layers[0].self_attn
    storages = {part.weight.untyped_storage().data_ptr() for part in (layer.q_proj, layer.k_proj, layer.v_proj)}
    assert len(storages) == 1


@pytest.mark.parametrize("prompt_prefix", ["reuse", "store"])
def test_a_static_step_in_one_pass_gives_the_curve_of_an_eager_one(folder, as_on_a_gpu, prompt_prefix):
    as_on_a_gpu()
    config = reuse(folder, prompt_prefix=prompt_prefix, fused_optimizer=None)
    curves = []
    for one in (config, config.replace(step_graph=True)):
        prepared, stepper, losses = set_up(one)
        prepared.model.reprogramming_layer.dropout.p = 0.0
        for _ in range(2):
            stepper.train(prepared.windows.passes[0][:40])
        curves.append(losses)
    assert curves[1] == pytest.approx(curves[0], rel=1e-6)
