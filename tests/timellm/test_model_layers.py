import pytest
import torch

from timellm.model import devices
from timellm.model.copies import joined_copies
from timellm.model.layers import LeanDropout, ReprogrammingLayer


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(p):
    torch.manual_seed(0)
    dropped = LeanDropout(p)(torch.ones(1000, 1001))
    values = dropped.unique()
    assert values[0] == 0
    assert values[1] == pytest.approx(1 / (1 - p), rel=1e-4)
    assert len(values) == 2
    assert (dropped == 0).float().mean() == pytest.approx(p, abs=0.003)


def test_dropout_is_as_likely_for_every_element():
    torch.manual_seed(0)
    dropout, dropped = LeanDropout(0.25), torch.zeros(3, 7)
    for _ in range(4000):
        dropped += dropout(torch.ones(3, 7)) == 0
    assert dropped / 4000 == pytest.approx(torch.full((3, 7), 0.25), abs=0.04)


def test_what_is_dropped_has_no_gradient_and_the_rest_is_scaled():
    torch.manual_seed(0)
    x = torch.randn(50, 9, requires_grad=True)
    out = LeanDropout(0.4)(x)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(gradient * x, out)


def test_dropout_follows_the_seed():
    draws = []
    for _ in range(2):
        torch.manual_seed(5)
        draws.append(LeanDropout(0.1)(torch.ones(100)))
    assert torch.equal(*draws)


@pytest.mark.parametrize(("p", "kept"), [(0.0, 1.0), (1.0, 0.0)])
def test_everything_or_nothing_is_kept_at_the_ends(p, kept):
    assert torch.equal(LeanDropout(p)(torch.ones(40)), torch.full((40,), kept))


def test_nothing_is_dropped_in_evaluation():
    x = torch.randn(20)
    assert torch.equal(LeanDropout(0.5).eval()(x), x)


def gradients_of(layer, patches, prototypes, weight, dtype):
    """Gradients of a weighted sum of what the layer makes of patches, its weights cast as a step casts them."""
    layer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        joint = joined_copies(layer.joint_projection, dtype)
        described = layer(patches, *layer.keys_values(prototypes.to(dtype), joint))
    (described.float() * weight).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in layer.named_parameters()}


def test_one_kernel_rounds_the_queries_gradients_no_more_than_attention_in_parts(monkeypatch):
    errors = {False: 0.0, True: 0.0}
    for seed in range(8):
        torch.manual_seed(seed)
        layer = ReprogrammingLayer(d_model=8, n_heads=2, d_ff=16, d_llm=12, is_half=True).eval()
        given = torch.randn(12, 5, 8), 0.1 * torch.randn(60, 12), torch.randn(12, 5, 12)  # prototypes differ little
        exact = gradients_of(layer, *given, torch.float32)["query_projection.weight"]
        for is_fused in errors:
            with monkeypatch.context() as patched:
                patched.setattr(devices, "launches_kernels", lambda device, is_fused=is_fused: is_fused)
                ours = gradients_of(layer, *given, torch.bfloat16)["query_projection.weight"]
            errors[is_fused] += float((ours - exact).norm() / exact.norm())
    assert errors[True] <= 1.15 * errors[False]


@pytest.mark.parametrize(("is_half", "has_effect"), [(True, False), (False, True)])
def test_one_kernel_in_half_precision_leaves_out_the_keys_bias_which_still_has_a_gradient(
    monkeypatch, is_half, has_effect
):
    monkeypatch.setattr(devices, "launches_kernels", lambda device: True)
    torch.manual_seed(0)
    layer = ReprogrammingLayer(d_model=8, n_heads=2, d_ff=16, d_llm=12, is_half=is_half)
    prototypes = torch.randn(7, 12)
    before, _ = layer.keys_values(prototypes)
    with torch.no_grad():
        layer.key_projection.bias += 1
    keys, values = layer.keys_values(prototypes)
    assert torch.equal(keys, before) is not has_effect
    (keys.sum() + values.sum()).backward()
    torch.testing.assert_close(layer.key_projection.bias.grad, torch.full((32,), 7.0))
    assert set(layer.state_dict()) == {name for name, _ in layer.named_parameters()}
