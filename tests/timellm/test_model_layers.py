import pytest
import torch

from timellm.model.layers import LeanDropout


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
