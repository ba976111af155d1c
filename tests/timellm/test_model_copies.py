import torch
from torch.nn import functional as F

from timellm.model.copies import joined_copies
from timellm.model.layers import ReprogrammingLayer, restore_scale


def test_joined_copies_have_the_values_and_gradients_that_autocast_gives():
    torch.manual_seed(0)
    one, two, bias = (torch.randn(shape, requires_grad=True) for shape in ((3, 4), (2, 4), (5,)))
    x = torch.randn(6, 4)
    joint, cast_bias = joined_copies(((one, two), (bias,)), torch.bfloat16)
    (F.linear(x.bfloat16(), joint, cast_bias).float() ** 2).sum().backward()
    ours = [each.grad.clone() for each in (one, two, bias)]
    for each in (one, two, bias):
        each.grad = None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = F.linear(x, torch.cat((one, two)), bias)
    (out.float() ** 2).sum().backward()
    assert torch.equal(joint, torch.cat((one, two)).bfloat16())
    for mine, each in zip(ours, (one, two, bias), strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, each.grad)


def test_a_copy_that_nobody_reads_has_no_gradient():
    one, two = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    copy, _ = joined_copies(((one,), (two,)), torch.bfloat16)
    copy.sum().backward()
    assert torch.equal(one.grad, torch.ones(3, 4))
    assert two.grad is None


def test_one_product_makes_the_keys_and_values_that_two_make():
    torch.manual_seed(0)
    layer = ReprogrammingLayer(d_model=8, n_heads=2, d_ff=16, d_llm=12)
    prototypes = torch.randn(7, 12)
    joint = joined_copies(layer.joint_projection, torch.float32)
    for ours, plain in zip(layer.keys_values(prototypes, joint), layer.keys_values(prototypes), strict=True):
        torch.testing.assert_close(ours, plain)


def test_restoring_the_scale_has_the_gradient_of_its_formula():
    forecast = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    mean, inverse_std = torch.randn(3, 1, dtype=torch.float64), torch.rand(3, 1, dtype=torch.float64) + 0.5
    assert torch.autograd.gradcheck(lambda part: restore_scale(part, mean, inverse_std), forecast)
    half = forecast.detach().bfloat16().requires_grad_()
    restore_scale(half, mean.float(), inverse_std.float()).sum().backward()
    assert half.grad.dtype == torch.bfloat16
