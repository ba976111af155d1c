"""What only a GPU can show of exact reuse: one pass gives the numbers of two, and a graph those of its steps."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.variants import Answer, Contestant, Variant, answer
from timellm.contract.config import RunConfig
from timellm.model import devices, one_pass
from timellm.model.layers import ReprogrammingLayer
from timellm.optimize.engine import build_engine
from timellm.run.batches import Batch
from timellm.run.preparation import prepare
from timellm.run.stepping import Stepper

Row = tuple[str, str, str]
"""Name, figure, unit or remark."""

WAYS = ("reuse", "store")
MOST_OF_A_FORECAST, MOST_OF_A_GRADIENT = 1e-5, 1e-4
"""Largest relative differences between one pass and two, in fp32."""
MOST_OF_TWO_PASSES = 1.5
"""Largest error of all gradients in bf16, relative to that of two passes."""
MOST_OF_PARTS = 1.15
"""Largest error of the queries' gradient of one attention kernel in bf16, relative to that of attention in parts."""
MOST_OF_A_CURVE = 1e-6
"""Largest relative difference between a graph's losses and those of its steps, or what two eager curves differ by."""
_PASSES, _GROUPS = 3, 5
_SDPA: dict[str, Any] = {"attention": "sdpa"}


def exactness(config: RunConfig, device: torch.device, small: bool) -> Iterator[Row]:
    """One pass against two, one attention kernel against several, a graph against its steps, with dropout too."""
    ways = WAYS[1:] if small else WAYS
    for way in ways:
        yield one_pass_row(config, device, way)
    yield rounding_row(config, device)
    yield attention_row(device)
    for way in ways:
        yield graph_row(config, device, way)
    yield dropout_row(config, device)


def one_pass_row(config: RunConfig, device: torch.device, way: str) -> Row:
    """The largest differences of forecasts and gradients in fp32."""
    contestant = _contestant(config, device, way, "fp32")
    two, one = (_answered(contestant, in_one=in_one) for in_one in (False, True))
    if not one.taken:
        return f"{way}, one pass", "-", "this language model is not taken through in one pass"
    forecast, gradient = one.trained.difference(two.trained)
    evaluated = _relative(one.evaluated, two.evaluated)
    is_right = max(forecast, evaluated) < MOST_OF_A_FORECAST and gradient < MOST_OF_A_GRADIENT
    text = f"forecast {forecast:.1e}, evaluation {evaluated:.1e}, gradient {gradient:.1e}"
    return f"{way}, one pass", text, "right" if is_right else "WRONG"


def rounding_row(config: RunConfig, device: torch.device) -> Row:
    """The error of all gradients in bf16, relative to their norm, beside that of two passes."""
    exact = _answered(_contestant(config, device, "reuse", "fp32"), in_one=False).trained
    with _bf16_products():
        contestant = _contestant(config, device, "reuse", "bf16")
        two, one = (_answered(contestant, in_one=in_one) for in_one in (False, True))
    ours, before = (_error(each.trained.gradients, exact.gradients) for each in (one, two))
    text = f"gradients {100 * ours:.2f} %, in two passes {100 * before:.2f} %"
    return "reuse bf16, one pass", text, "right" if ours <= MOST_OF_TWO_PASSES * before else "WRONG"


def attention_row(device: torch.device) -> Row:
    """The error of the queries' gradient of the reprogramming attention in bf16, by one kernel and in parts."""
    torch.manual_seed(0)
    layer = ReprogrammingLayer(d_model=16, n_heads=8, d_ff=32, d_llm=768, is_half=True).to(device).eval()
    patches, prototypes, weights = torch.randn(32, 12, 16), 0.08 * torch.randn(1000, 768), torch.randn(32, 12, 768)

    def gradient(dtype: torch.dtype, *, is_one: bool) -> Tensor:
        layer.zero_grad()
        with (
            mock.patch.object(devices, "launches_kernels", return_value=is_one),
            torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16),
        ):
            described = layer(patches.to(device), *layer.keys_values(prototypes.to(device, dtype)))
        (described.float() * weights.to(device)).sum().backward()
        assert layer.query_projection.weight.grad is not None
        return layer.query_projection.weight.grad

    exact = gradient(torch.float32, is_one=False)
    ours, parts = (
        float((gradient(torch.bfloat16, is_one=is_one) - exact).norm() / exact.norm()) for is_one in (True, False)
    )
    text = f"queries' gradient {100 * ours:.2f} %, in parts {100 * parts:.2f} %"
    return "reprogramming bf16, one kernel", text, "right" if ours <= MOST_OF_PARTS * parts else "WRONG"


def graph_row(config: RunConfig, device: torch.device, way: str) -> Row:
    """The largest difference between the losses of a graph and of its steps, smaller batches between its replays."""
    first, again, graph = (_curve(config, device, way, is_graph=is_graph) for is_graph in (False, False, True))
    name, difference = f"{way}, step graph", _relative(graph.losses, first.losses)
    if graph.problem is not None:
        return name, f"{difference:.1e}", f"NOT RECORDED: {graph.problem}"
    spread = _relative(again.losses, first.losses)
    is_right = difference <= max(MOST_OF_A_CURVE, 3 * spread)
    text = f"{difference:.1e}, eager twice {spread:.1e}"
    return name, text, f"{'right' if is_right else 'WRONG'}: {len(graph.losses)} steps, {graph.taken} of them static"


def dropout_row(config: RunConfig, device: torch.device) -> Row:
    """With dropout a graph's replays draw the masks that its steps would draw."""
    eager, graph = (_curve(config, device, "reuse", is_graph=is_graph, drops=True) for is_graph in (False, True))
    difference = _relative(graph.losses, eager.losses)
    remark = "the masks of its steps" if difference < 1e-3 else "other masks than its steps"
    return "reuse, step graph, dropout", f"{difference:.1e}", remark


@dataclass(frozen=True)
class _Answered:
    """What a model says of a batch in one pass or two.

    Attributes:
        trained: Forecast and gradients.
        evaluated: Forecast without gradients.
        taken: Whether it was one pass.
    """

    trained: Answer
    evaluated: Tensor
    taken: bool


@dataclass(frozen=True)
class _Curve:
    """Losses of a short training.

    Attributes:
        losses: One for each step [steps].
        problem: Why no graph was recorded.
        taken: Steps that a graph could take.
    """

    losses: Tensor
    problem: str | None
    taken: int


def _contestant(config: RunConfig, device: torch.device, way: str, precision: str) -> Contestant:
    return Contestant(Variant(way, {**_SDPA, "prompt_prefix": way, "precision": precision}), config, device, 1)


def _answered(contestant: Contestant, *, in_one: bool) -> _Answered:
    """Without dropout, on the first batch; the store, if there is one, is filled by the first answer."""
    read = mock.patch.object(one_pass, "read_window", wraps=one_pass.read_window)
    with _passes(contestant.device, in_one=in_one), read as taken:
        answer(contestant)
        trained, is_taken = answer(contestant), taken.called
        batch, store = contestant.first_batch(), contestant.prepared.store
        with torch.no_grad():
            evaluated = contestant.model(batch.x, store.prompt(batch) if store else batch.prompt)
    return _Answered(trained, evaluated, is_taken)


@contextlib.contextmanager
def _passes(device: torch.device, *, in_one: bool) -> Iterator[None]:
    """Let the frozen model be read in one pass, as a GPU does by itself, or in two."""
    if not in_one:
        with mock.patch.object(one_pass, "suits", return_value=False):
            yield
    elif device.type == "cpu":
        with mock.patch.object(one_pass, "devices", mock.Mock(wraps=devices, launches_kernels=lambda device: True)):
            yield
    else:
        yield


def _bf16_products() -> contextlib.AbstractContextManager[Any]:
    """Products of bf16 operands are in bf16, as on a GPU, on a CPU that is slow at it too."""
    return mock.patch("timellm.run.preparation.product_dtype", lambda dtype, device: dtype)


def _curve(config: RunConfig, device: torch.device, way: str, *, is_graph: bool, drops: bool = False) -> _Curve:
    """Passes over a few batches, of which the last is smaller."""
    windows = _GROUPS * config.batch_size + config.batch_size // 2
    static: dict[str, Any] = {"step_graph": is_graph, "prompt_padding": "masked", "accumulation_steps": 1}
    few = {"train_samples": windows, "val_samples": config.batch_size, "train_epochs": 1, "warmup_steps": 0}
    run = config.replace(**_SDPA, **static, **few, prompt_prefix=way)
    prepared = prepare(run, device, 0)
    for module in prepared.model.modules():
        if isinstance(module, nn.Dropout) and not drops:
            module.p = 0.0
    stepper, losses = Stepper(run, prepared, build_engine(run, prepared.model, device, 1000), device, _ignore), []
    take_step = stepper.take_step

    def recorded(group: Tensor, batches: list[Batch]) -> Tensor:
        losses.append(take_step(group, batches))
        return losses[-1]

    stepper.take_step = recorded  # type: ignore[method-assign]
    for _ in range(_PASSES):
        stepper.train(prepared.windows.passes[0])
    return _Curve(torch.stack(losses), stepper.static.problem, stepper.static.taken)


def _ignore(step: int, samples: int, loss: float | None) -> None:
    """No report."""


def _error(gradients: dict[str, Tensor], exact: dict[str, Tensor]) -> float:
    apart = [(gradients[name] - part).norm() for name, part in exact.items()]
    return float(torch.stack(apart).norm() / torch.stack([part.norm() for part in exact.values()]).norm())


def _relative(value: Tensor, reference: Tensor) -> float:
    return float((value - reference).abs().max() / reference.abs().max())
