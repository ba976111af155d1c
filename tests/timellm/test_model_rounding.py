import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tests.timellm.tiny_runs import CPU, options, set_up, tiny_config
from timellm.contract.config import RunConfig
from timellm.model import rounding
from timellm.model.rounding import RoundedProducts, product_dtype, rounded
from timellm.model.timellm import compiled
from timellm.run.training import TrainingRun

BF16 = torch.bfloat16
ONE_ULP = 2**-7
"""Relative distance of neighbouring bf16 numbers, at most."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture
def multiply_in(monkeypatch):
    """Chooses the type that products of bf16 operands are computed in, whatever this machine does faster."""

    def choose(dtype):
        monkeypatch.setattr("timellm.run.preparation.product_dtype", lambda _, device: dtype)

    return choose


def answer_of(config):
    """Forecast and gradients of one batch, dropout off."""
    prepared, _, _ = set_up(config)
    model = prepared.model.eval()
    (batch,) = prepared.train([prepared.windows.passes[0][:8]])
    forecast = model(batch.x, batch.prompt)
    (forecast - batch.y).square().mean().backward()
    gradients = {
        name: part.grad
        for name, part in model.trained_parameters()
        if not name.endswith("key_projection.bias")  # zero but for rounding
    }
    return forecast.detach(), gradients


def distance(one, other):
    return ((one - other).abs().max() / other.abs().max()).item()


class Operands(TorchDispatchMode):
    """Records the types that products are computed in, and how far their operands are from bf16 values."""

    def __init__(self):
        super().__init__()
        self.types, self.largest = set(), 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_):
            for operand in args[-2:]:
                self.types.add(operand.dtype)
                self.largest = max(self.largest, (operand - operand.to(BF16)).abs().max().item())
        return func(*args, **(kwargs or {}))


def test_rounded_operands_give_the_product_of_bf16_operands():
    torch.manual_seed(0)
    left, right = torch.randn(64, 96), torch.randn(96, 32)
    mine = rounded(left, BF16) @ rounded(right, BF16)
    exact = left.to(BF16).double() @ right.to(BF16).double()
    torch.testing.assert_close(mine.double(), exact, rtol=1e-5, atol=1e-5)


def test_products_and_gradients_are_those_of_autocast():
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(48, 24), torch.randn(16, 48)

    def both(types):
        with types:
            rows = layer(x)
            scores = torch.softmax(rows @ rows.t(), dim=-1)
        return rows.float(), scores.float(), torch.autograd.grad(scores.float().square().sum(), layer.weight)[0]

    mine, theirs = both(RoundedProducts(BF16)), both(torch.autocast("cpu", dtype=BF16))
    for one, other in zip(mine, theirs, strict=True):
        assert 0 < distance(one, other) < 4 * ONE_ULP
        assert one.dtype == torch.float32


def test_only_operands_of_products_are_rounded():
    x = torch.full((4,), 1 + 2**-10)
    with RoundedProducts(BF16):
        assert torch.equal(x * 1, x)
        assert torch.equal(F.linear(x, torch.eye(4)), torch.ones(4))


@pytest.mark.parametrize(("ratio", "expected"), [(0.25, BF16), (1.2, BF16), (1.3, torch.float32), (90, torch.float32)])
def test_products_are_computed_in_fp32_where_bf16_takes_longer(monkeypatch, ratio, expected):
    monkeypatch.setattr(rounding, "slowdown", lambda dtype: ratio)
    assert product_dtype(BF16, CPU) == expected
    assert product_dtype(torch.float32, CPU) == torch.float32
    assert product_dtype(BF16, torch.device("cuda")) == BF16


def test_the_slowdown_of_a_type_is_measured_once(monkeypatch):
    seconds = {torch.float32: iter([2.0, 1.0, 1.0, 1.0, 1.0]), BF16: iter([9.0, 3.0, 2.0, 4.0, 4.0])}
    monkeypatch.setattr(rounding, "seconds_of_product", lambda dtype: next(seconds[dtype]))
    rounding.slowdown.cache_clear()
    try:
        assert rounding.slowdown(BF16) == rounding.slowdown(BF16) == 2.0
    finally:
        rounding.slowdown.cache_clear()


def test_a_type_that_takes_very_long_is_not_measured_to_the_end(monkeypatch):
    asked = []
    monkeypatch.setattr(rounding, "seconds_of_product", lambda dtype: asked.append(dtype) or 1.0 + 99 * (dtype == BF16))
    rounding.slowdown.cache_clear()
    try:
        assert rounding.slowdown(BF16) == 100.0
        assert asked.count(BF16) == 2
    finally:
        rounding.slowdown.cache_clear()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_model_answers_as_with_bf16_operands(folder, multiply_in, kind, attention):
    config = tiny_config(folder, kind, precision="bf16", prompt_prefix="reuse", attention=attention, train_samples=8)
    fp32, exact = answer_of(config.replace(precision="fp32"))
    multiply_in(BF16)
    native, of_native = answer_of(config)
    multiply_in(torch.float32)
    mine, of_mine = answer_of(config)
    assert 0 < distance(mine, fp32) <= 1.5 * distance(native, fp32) + 1e-4
    for name, gradient in exact.items():
        assert distance(of_mine[name], gradient) <= 1.5 * distance(of_native[name], gradient) + 0.01, name


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("has_grad", [True, False])
def test_every_operand_of_the_backbone_and_the_mapping_layer_is_a_bf16_value(folder, multiply_in, kind, has_grad):
    multiply_in(torch.float32)
    prepared, _, _ = set_up(tiny_config(folder, kind, precision="bf16", prompt_prefix="reuse", train_samples=8))
    (batch,) = prepared.train([prepared.windows.passes[0]])
    with torch.set_grad_enabled(has_grad), Operands() as operands:
        prepared.model(batch.x, batch.prompt)
    assert operands.types == {torch.float32}
    assert operands.largest == 0


def test_the_word_embeddings_are_rounded_once_in_all(folder, multiply_in):
    multiply_in(torch.float32)
    prepared, stepper, _ = set_up(tiny_config(folder, precision="bf16", prompt_prefix="reuse", train_samples=16))
    words = prepared.model.word_embeddings.shape

    class Casts(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_):
                Casts.count += any(isinstance(part, torch.Tensor) and part.shape == words for part in args)
            return func(*args, **(kwargs or {}))

    with Casts():
        stepper.train(prepared.windows.passes[0])
    assert Casts.count == 0


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("prompt_store_gib", [0.1, 0.0003], ids=["all fits", "some fits"])
def test_a_store_of_bf16_values_loses_nothing(folder, multiply_in, attention, prompt_store_gib):
    multiply_in(torch.float32)
    settings = {"precision": "bf16", "attention": attention, "prompt_prefix": "store", "train_epochs": 2}
    prepared, _, _ = set_up(tiny_config(folder, prompt_store_gib=prompt_store_gib, **settings))
    assert (prepared.store.share < 1) == (prompt_store_gib < 0.1)
    (batch,) = prepared.train([prepared.windows.passes[0][:8]])
    model = prepared.model.eval()
    computed, read = (model(batch.x, prepared.store.prompt(batch)) for _ in range(2))
    assert torch.equal(read, computed)
    torch.testing.assert_close(computed, model(batch.x, batch.prompt), rtol=1e-6, atol=1e-6)


def test_an_engine_that_casts_by_itself_changes_nothing(folder, multiply_in):
    multiply_in(torch.float32)
    config = tiny_config(folder, precision="bf16", prompt_prefix="reuse", train_samples=8)
    plain, _ = answer_of(config)
    with torch.autocast("cpu", dtype=BF16):
        inside, _ = answer_of(config)
    assert torch.equal(inside, plain)


def test_compiled_code_rounds_too():
    x = torch.tensor([1 + 2**-10, 3 + 2**-9])

    def twice(x):
        return rounded(x, BF16) * 2

    found = compiled(twice, RunConfig(compile_mode="default"), keeps_casts=True)(x)
    assert torch.equal(found, torch.tensor([2.0, 6.0]))


@pytest.mark.parametrize(("prompt_prefix", "expected"), [("reuse", "fp32"), ("recompute", "bf16")])
def test_a_result_tells_what_products_were_computed_in(folder, tmp_path, multiply_in, prompt_prefix, expected):
    multiply_in(torch.float32)
    config = tiny_config(folder, precision="bf16", prompt_prefix=prompt_prefix, train_samples=16, val_samples=8)
    result = TrainingRun(config, options(tmp_path)).run()
    assert (result.state, result.matmul_dtype) == ("complete", expected)
    told = "Operands were rounded to bf16 and multiplied in fp32, which this CPU does faster."
    assert (told in result.notes) == (expected == "fp32")
