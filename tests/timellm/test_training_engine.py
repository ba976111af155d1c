import copy

import accelerate.optimizer
import pytest
import torch

from tests.timellm.tiny_runs import CPU, set_up, tiny_config
from timellm.optimize.engine import PlainEngine, build_optimizer, create_state
from timellm.optimize.loss_scale import MOST_SKIPPED, SkippedUpdates
from timellm.run.errors import Diverged
from timellm.run.stepping import Stepper


def trained(network, config, rows, *, is_early):
    network = copy.deepcopy(network)
    optimizer = build_optimizer(config, list(network.parameters()))
    if is_early:
        create_state(optimizer)
        optimizer.zero_grad()
    for row in rows:
        network(row).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize("fused_optimizer", [False, True])
def test_moments_created_early_change_no_update(tmp_path, optimizer, fused_optimizer):
    torch.manual_seed(0)
    network, rows = torch.nn.Linear(4, 3), torch.randn(5, 4)
    settings = {"optimizer": optimizer, "weight_decay": 0.1, "fused_optimizer": fused_optimizer}
    config = tiny_config(tmp_path, learning_rate=0.1, **settings)
    early, late = (trained(network, config, rows, is_early=is_early) for is_early in (True, False))
    assert torch.equal(early, late)


def test_creating_moments_moves_nothing_and_counts_no_step():
    weight = torch.nn.Parameter(torch.randn(3))
    before, optimizer = weight.detach().clone(), torch.optim.AdamW([weight], lr=0.5, weight_decay=0.5)
    create_state(optimizer)
    assert torch.equal(weight.detach(), before)
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert optimizer.state[weight]["step"] == 0


def test_a_run_starts_with_moments_and_without_gradients(tmp_path):
    prepared, stepper, _ = set_up(tiny_config(tmp_path, prompt_prefix="reuse"))
    assert all(parameter.grad is None for parameter in prepared.model.parameters())
    states = stepper.engine.optimizer.state
    assert len(states) == len(list(prepared.model.trained_parameters()))
    assert all(state["step"] == 0 for state in states.values())


def test_no_step_count_is_moved_to_the_device(tmp_path, monkeypatch):
    moved = []
    monkeypatch.setattr(accelerate.optimizer, "move_to_device", lambda state, device: (moved.append(state), state)[1])
    set_up(tiny_config(tmp_path, fused_optimizer=False))
    assert moved == []


def stepper_of(config, prepared):
    """A stepper as compiled code's, whose network is not compiled."""
    engine = PlainEngine(config, prepared.model, CPU, 100)
    return Stepper(config, prepared, engine, CPU, lambda *_: None)


@pytest.mark.parametrize("prompt_prefix", ["recompute", "reuse"])
def test_gradients_of_a_cuda_graph_are_added_up_in_memory_of_their_own(tmp_path, monkeypatch, prompt_prefix):
    config = tiny_config(tmp_path, prompt_prefix=prompt_prefix, accumulation_steps=2, train_samples=48)
    prepared, _, _ = set_up(config)
    initial = copy.deepcopy(prepared.model.state_dict())
    trained = [parameter for _, parameter in prepared.model.trained_parameters()]
    places: list[list[int]] = []

    def curve(settings):
        prepared.model.load_state_dict(initial)
        torch.manual_seed(0)
        stepper, losses = stepper_of(settings, prepared), []
        step, backward = stepper.take_step, stepper.engine.backward

        def placed(loss, *, is_last):
            before = [None if parameter.grad is None else parameter.grad.data_ptr() for parameter in trained]
            backward(loss, is_last=is_last)
            places.append(before)

        monkeypatch.setattr(stepper.engine, "backward", placed)
        monkeypatch.setattr(
            stepper, "take_step", lambda *given: (losses.append(step(*given).item()), torch.tensor(0.0))[1]
        )
        stepper.train(prepared.windows.passes[0])
        return losses

    plain = curve(config)
    places.clear()
    assert curve(config.replace(compile_mode="reduce-overhead")) == pytest.approx(plain, rel=1e-6)
    assert len(places) == 6
    assert None not in places[0]
    assert all(place == places[0] for place in places)


def test_gradients_of_shared_prototypes_are_added_up_in_fp32(tmp_path):
    config = tiny_config(tmp_path, prompt_prefix="reuse", accumulation_steps=2)
    _, stepper, _ = set_up(config)
    shared = tuple(torch.randn(2, 3, 4, dtype=torch.bfloat16) for _ in range(2))
    several, alone = stepper.leaves(shared, 2), stepper.leaves(shared, 1)
    assert [leaf.dtype for leaf in (*several, *alone)] == 2 * [torch.float32] + 2 * [torch.bfloat16]


def test_updates_that_a_scaler_skips_are_counted_without_reading_its_scale():
    scaler, weight = torch.amp.GradScaler("cpu"), torch.nn.Parameter(torch.ones(2))
    optimizer, skipped, counts = torch.optim.Adam([weight]), SkippedUpdates(scaler), []
    for gradient in (float("inf"), float("inf"), 1.0, float("inf")):
        scaler.scale(weight.sum()).backward()
        weight.grad.fill_(gradient)
        skipped.begin()
        scaler.step(optimizer)
        scaler.update()
        skipped.end()
        counts.append(skipped.read())
    assert counts == [1, 2, 0, 1]


def test_ten_updates_skipped_in_a_row_end_a_run_as_diverged(tmp_path, monkeypatch):
    prepared, stepper, losses = set_up(tiny_config(tmp_path, train_samples=160))
    monkeypatch.setattr(stepper.engine, "skipped_in_a_row", lambda: max(0, len(losses) - 3))
    with pytest.raises(Diverged, match=r"the last 10 up to step 13 were skipped.*Try a lower --learning_rate"):
        stepper.train(prepared.windows.passes[0])
    assert len(losses) == 3 + MOST_SKIPPED
