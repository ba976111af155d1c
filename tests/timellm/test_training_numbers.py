"""The numbers of training do not depend on how the work is cut up."""

import numpy as np
import pytest
import torch

from tests.timellm.tiny_runs import CPU, set_up, tiny_config
from timellm.model.reuse import remember
from timellm.optimize.engine import PlainEngine, build_engine
from timellm.run.evaluate import evaluate
from timellm.run.preparation import prepare
from timellm.run.stepping import Stepper


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


def gradients(config, windows):
    """Gradients of one step, dropout off."""
    prepared, stepper, _ = set_up(config)
    prepared.model.eval()
    stepper.engine.step = lambda: None
    stepper.train(windows)
    return {name: parameter.grad.clone() for name, parameter in prepared.model.trained_parameters()}


@pytest.mark.parametrize("prompt_prefix", ["recompute", "reuse"])
def test_accumulation_gives_the_gradients_of_one_big_batch(folder, prompt_prefix):
    windows = torch.arange(0, 320, 10)
    big = gradients(tiny_config(folder, prompt_prefix=prompt_prefix, batch_size=32), windows)
    parts = gradients(tiny_config(folder, prompt_prefix=prompt_prefix, batch_size=8, accumulation_steps=4), windows)
    for name, gradient in big.items():
        if not name.endswith("key_projection.bias"):
            assert (parts[name] - gradient).abs().max() <= 1e-5 * gradient.abs().max(), name


def test_a_last_incomplete_group_weighs_what_it_holds(folder):
    windows = torch.arange(0, 210, 10)
    whole = gradients(tiny_config(folder, batch_size=21), windows)
    parts = gradients(tiny_config(folder, batch_size=8, accumulation_steps=4), windows)
    for name, gradient in whole.items():
        if not name.endswith("key_projection.bias"):
            assert (parts[name] - gradient).abs().max() <= 1e-5 * gradient.abs().max(), name


def losses_of(config, steps=20):
    prepared, stepper, losses = set_up(config)
    order = prepared.windows.passes[0][: steps * config.global_batch]
    stepper.train(order)
    return np.array(losses)


def test_the_same_seed_gives_the_same_losses(folder):
    config = tiny_config(folder)
    np.testing.assert_array_equal(losses_of(config), losses_of(config))


def test_another_seed_gives_other_losses(folder):
    assert not np.allclose(losses_of(tiny_config(folder)), losses_of(tiny_config(folder, seed=1)))


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("prompt", ["official", "none"])
def test_reuse_and_recompute_give_the_same_curve_over_fifty_steps(folder, kind, attention, prompt):
    common = {"kind": kind, "prompt": prompt, "fused_optimizer": False}
    published = losses_of(tiny_config(folder, **common), steps=50)
    reused = losses_of(tiny_config(folder, **common, prompt_prefix="reuse", attention=attention), steps=50)
    np.testing.assert_allclose(reused, published, rtol=1e-4)


def test_loader_workers_do_not_change_the_losses(folder):
    np.testing.assert_array_equal(losses_of(tiny_config(folder, num_workers=2)), losses_of(tiny_config(folder)))


@pytest.mark.parametrize(
    ("kind", "prompt_prefix"),
    [("gpt2", "recompute"), ("gpt2", "reuse"), ("llama", "recompute"), ("llama", "reuse"), ("bert", "recompute")],
)
def test_validation_mse_does_not_depend_on_the_batch_size(folder, kind, prompt_prefix):
    config = tiny_config(folder, kind, prompt_prefix=prompt_prefix)
    prepared, _, _ = set_up(config)
    scores = [
        evaluate(prepared.model, prepared.validation, prepared.windows.validation, size, CPU, shares_prototypes=True)
        for size in (1, 7, 32, 64)
    ]
    for score in scores:
        assert score.windows == len(prepared.data.validation)
        assert score.mse == pytest.approx(scores[0].mse, rel=1e-5)
        assert score.mae == pytest.approx(scores[0].mae, rel=1e-5)


def test_forecast_does_not_depend_on_batch_neighbours(folder):
    prepared, _, _ = set_up(tiny_config(folder, prompt_prefix="reuse"))
    windows = torch.tensor([3, 90, 200])
    model = prepared.model.eval()
    together = next(iter(prepared.train([windows])))
    for row, window in enumerate(windows):
        alone = next(iter(prepared.train([window.reshape(1)])))
        with torch.no_grad():
            expected = model(together.x, together.prompt)[row]
            torch.testing.assert_close(model(alone.x, alone.prompt)[0], expected, rtol=1e-5, atol=1e-5)


def test_published_padding_makes_a_forecast_depend_on_its_neighbours(folder):
    prepared, _, _ = set_up(tiny_config(folder, prompt_padding="published"))
    model = prepared.model.eval()
    batch = next(iter(prepared.train([torch.arange(0, 256, 8)])))
    lengths = [next(iter(prepared.train([window.reshape(1)]))).prompt.ids.shape[1] for window in batch.indices]
    row = int(np.argmin(lengths))
    alone = next(iter(prepared.train([batch.indices[row : row + 1]])))
    with torch.no_grad():
        together = model(batch.x, batch.prompt)[row]
        assert (model(alone.x, alone.prompt)[0] - together).abs().max() > 1e-4


def test_the_prototypes_are_computed_once_per_step_under_accumulation(folder):
    config = tiny_config(folder, prompt_prefix="reuse", accumulation_steps=4)
    prepared, stepper, _ = set_up(config)
    assert isinstance(stepper.engine, PlainEngine)
    calls = []
    prototypes = prepared.model.prototypes
    prepared.model.prototypes = lambda: calls.append(1) or prototypes()
    stepper.train(prepared.windows.passes[0][: 3 * config.global_batch])
    assert len(calls) == 3


def test_no_frozen_parameter_is_in_the_optimizer(folder):
    prepared, stepper, _ = set_up(tiny_config(folder))
    held = sum(len(group["params"]) for group in stepper.engine.optimizer.param_groups)
    assert held == len(list(prepared.model.trained_parameters()))
    assert not any(name.startswith("llm_model") for name, _ in prepared.model.trained_parameters())


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("prompt_store_gib", [4.0, 0.0005], ids=["all fits", "some fits"])
@pytest.mark.parametrize("prompt_scope", ["channel", "span"])
def test_a_prompt_store_gives_the_curve_of_reuse_in_every_epoch(folder, kind, prompt_store_gib, prompt_scope):
    common = {"kind": kind, "train_epochs": 2, "prompt_scope": prompt_scope}

    def two_passes(config):
        prepared, stepper, losses = set_up(config)
        for windows in prepared.windows.passes:
            stepper.train(windows[:160])
        if prepared.store is not None:
            assert (prepared.store.share < 1) == (prompt_store_gib < 1)
        return np.array(losses)

    reused = two_passes(tiny_config(folder, prompt_prefix="reuse", **common))
    stored = two_passes(tiny_config(folder, prompt_prefix="store", prompt_store_gib=prompt_store_gib, **common))
    np.testing.assert_allclose(stored, reused, rtol=1e-6)


def test_a_full_store_computes_no_prompt_after_the_first_epoch(folder, monkeypatch):
    config = tiny_config(folder, prompt_prefix="store", train_epochs=2)
    prepared, stepper, _ = set_up(config)
    calls = []
    monkeypatch.setattr(
        "timellm.model.timellm.remember",
        lambda blocks, embeddings, *more, **flags: (
            calls.append(len(embeddings)) or remember(blocks, embeddings, *more, **flags)
        ),
    )
    stepper.train(prepared.windows.passes[0])
    assert sum(calls) == len(prepared.data.train)
    stepper.train(prepared.windows.passes[1])
    assert sum(calls) == len(prepared.data.train)


@pytest.mark.parametrize("prompt_prefix", [pytest.param("recompute", marks=pytest.mark.slow), "reuse"])
def test_compiled_training_gives_the_same_curve_and_never_recompiles(folder, prompt_prefix):
    from torch._dynamo.utils import counters

    def without_dropout(config):
        """Compiled code draws other random numbers."""
        prepared, stepper, losses = set_up(config)
        prepared.model.eval()
        return prepared.windows.passes[0], stepper, losses

    torch._dynamo.reset()
    common = {"prompt_prefix": prompt_prefix, "batch_size": 16}
    windows, stepper, plain = without_dropout(tiny_config(folder, **common))
    stepper.train(windows[:121])
    windows, stepper, compiled = without_dropout(tiny_config(folder, compile_mode="default", **common))
    stepper.train(windows[:32])
    graphs = counters["stats"]["unique_graphs"]
    assert graphs >= 1
    stepper.train(windows[32:121])
    assert counters["stats"]["unique_graphs"] == graphs
    np.testing.assert_allclose(compiled, plain, rtol=1e-4)


@pytest.mark.parametrize("train_samples", [16, 24, 32])
def test_extra_steps_that_use_a_store_find_their_prompts_in_it(folder, monkeypatch, train_samples):
    config = tiny_config(
        folder, prompt_prefix="store", prompt_store_gib=0.1, train_samples=train_samples, train_epochs=1
    )
    prepared = prepare(config, CPU, 5 * config.batch_size)
    engine = build_engine(config, prepared.model, CPU, 10)
    stepper = Stepper(config, prepared, engine, CPU, lambda *_: None)
    stepper.train(prepared.windows.passes[0])
    computed = []
    remember_prompt = prepared.model.remember_prompt
    monkeypatch.setattr(
        prepared.model, "remember_prompt", lambda ids: (computed.append(stepper.clock.steps), remember_prompt(ids))[1]
    )
    stepper.time_more(4, 60.0)
    assert (stepper.filling.steps, stepper.clock.steps) == (4, 4)
    assert set(computed) <= {0}  # no step that is timed as using the store computes a prompt
    assert len(computed) == max(0, 4 - (train_samples // 8 - config.untimed_steps))


def test_a_last_smaller_step_of_a_projection_is_left_out_of_the_time_of_those_before_it(folder):
    config = tiny_config(folder, train_samples=28)
    _, stepper, _ = set_up(config)
    clock = stepper.clock
    clock.steps_per_reading = 16  # as on a GPU
    happened = []
    take_step, pause = stepper.take_step, clock.pause
    stepper.take_step = lambda group, batches: (happened.append(len(group)), take_step(group, batches))[1]
    clock.pause = lambda: (happened.append("pause"), pause())[1]
    stepper.train(stepper.prepared.windows.passes[0])
    assert happened == [8, 8, 8, "pause", 4, "pause"]
    assert clock.counts == [3 - config.untimed_steps]


@pytest.mark.parametrize(("train_samples", "is_timed"), [(24, False), (None, True)])
def test_the_start_of_loader_workers_is_no_part_of_a_projection(folder, train_samples, is_timed, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("timellm.measure.timing.time.perf_counter", lambda: now[0])
    config = tiny_config(folder, train_samples=train_samples, num_workers=1)
    prepared, alone, _ = set_up(tiny_config(folder, train_samples=train_samples))
    stepper = Stepper(config, prepared, alone.engine, CPU, lambda *_: None)
    cut = stepper.prepared.train

    def slow_start(*given):
        now[0] += 2
        yield from cut(*given)

    object.__setattr__(stepper.prepared, "train", slow_start)
    windows = stepper.prepared.windows.passes[0][:24]
    stepper.train(windows, ends_pass=False)
    stepper.train(windows)
    assert (max(stepper.clock.seconds) >= 2) == is_timed
