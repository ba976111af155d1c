import pytest
import torch
from torch.nn import functional as F

from timellm.model.activations import ROWS_IN_CACHE, gelu_tanh


@pytest.mark.parametrize("shape", [(3, 5), (2, ROWS_IN_CACHE, 7), (ROWS_IN_CACHE + 1, 4), (0, 4)])
def test_without_autograd_it_is_what_torch_computes(shape):
    hidden = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 10
    expected = F.gelu(hidden.double(), approximate="tanh").float()
    with torch.no_grad():
        assert torch.allclose(gelu_tanh(hidden.clone()), expected, rtol=1e-5, atol=2e-6)


def test_far_from_zero_it_is_the_input_or_nothing():
    with torch.no_grad():
        assert gelu_tanh(torch.tensor([[-1e30, -50.0, 0.0, 50.0, 1e10]])).tolist() == [[0.0, 0.0, 0.0, 50.0, 1e10]]


def test_with_autograd_the_input_stays_and_has_its_gradient():
    hidden = torch.linspace(-3, 3, 40).view(8, 5).requires_grad_()
    before = hidden.detach().clone()
    (mine,) = torch.autograd.grad(gelu_tanh(hidden).sum(), hidden)
    (torchs,) = torch.autograd.grad(F.gelu(hidden, approximate="tanh").sum(), hidden)
    assert torch.equal(mine, torchs)
    assert torch.equal(hidden, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precisions_keep_their_kernel(dtype):
    hidden = torch.randn(6, 5).to(dtype)
    with torch.no_grad():
        assert torch.equal(gelu_tanh(hidden), F.gelu(hidden, approximate="tanh"))
