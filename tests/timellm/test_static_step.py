"""A training step in places that never change: on a CPU it runs as it is, on a GPU it is replayed as a graph."""

import contextlib
import copy
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from tests.timellm.tiny_runs import options, set_up, tiny_config
from timellm.contract.errors import InputError
from timellm.measure.launches import LaunchCounter
from timellm.run import stepping
from timellm.run.static_step import WARMUP_STEPS, OutsideMemory, StaticStep
from timellm.run.training import TrainingRun


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def curve(config, epochs=1):
    prepared, stepper, losses = set_up(config)
    without_dropout(prepared.model)
    for _ in range(epochs):
        stepper.train(prepared.windows.passes[0])
    return prepared, stepper, losses


@pytest.mark.parametrize("settings", [{"prompt_prefix": "reuse", "lradj": "TST"}, {"prompt_prefix": "store"}])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_static_step_gives_the_curve_of_an_eager_one(folder, settings, attention):
    config = tiny_config(folder, attention=attention, train_samples=44, **settings)  # the last batch is smaller
    _, _, eager = curve(config, epochs=2)
    _, stepper, static = curve(config.replace(step_graph=True), epochs=2)
    assert len(static) == 12
    assert stepper.static.taken == 10
    assert static == pytest.approx(eager, rel=1e-6)


@pytest.mark.parametrize("prompt_prefix", ["reuse", "store"])
def test_what_a_static_step_reads_and_writes_keeps_its_place_over_fifty_steps(folder, prompt_prefix):
    config = tiny_config(folder, prompt_prefix=prompt_prefix, batch_size=2, train_samples=4, step_graph=True)
    prepared, stepper, _ = set_up(config)
    static, engine, places = stepper.static, stepper.engine, []
    call = static.__call__

    def places_of():
        buffers, optimizer = static.buffers, engine.optimizer
        tensors = {f"weight {name}": parameter for name, parameter in prepared.model.named_parameters()}
        tensors |= {f"buffer {name}": buffer for name, buffer in prepared.model.named_buffers()}
        trained = dict(prepared.model.trained_parameters())
        tensors |= {f"gradient {name}": parameter.grad for name, parameter in trained.items()}
        for name, parameter in trained.items():
            tensors |= {f"{key} {name}": value for key, value in optimizer.state[parameter].items()}
        tensors |= {"x": buffers.x, "y": buffers.y, "ids": buffers.prompt.ids, "lengths": buffers.prompt.lengths}
        if buffers.prompt.memory is not None:
            tensors["memory"] = buffers.prompt.memory.whole
        tensors |= {"rate": optimizer.param_groups[0]["lr"], "loss": static.loss}
        return {name: tensor.data_ptr() for name, tensor in tensors.items()}

    stepper.static = mock.Mock(side_effect=lambda batch: (call(batch), places.append(places_of()))[0], fits=static.fits)
    for _ in range(25):
        stepper.train(prepared.windows.passes[0])
    assert len(places) == 50
    assert all(place == places[0] for place in places)


def test_a_static_step_asks_the_device_for_nothing(folder):
    config = tiny_config(folder, prompt_prefix="reuse", train_samples=8, step_graph=True)
    prepared, stepper, _ = set_up(config)
    stepper.train(prepared.windows.passes[0])
    with LaunchCounter() as counter:
        stepper.update(copy.copy(stepper.static.buffers))
    assert counter.total > 100
    assert not counter.waits


def test_what_a_graph_cannot_hold_is_refused_all_at_once(folder):
    with pytest.raises(InputError) as refused:
        tiny_config(folder, step_graph=True, accumulation_steps=2, precision="fp16", compile_mode="default")
    text = str(refused.value)
    for needed in ("prompt_prefix reuse or store", "accumulation_steps 1", "compile_mode off", "got fp16"):
        assert needed in text


GPU = torch.device("cuda")


class FakeGpu:
    """Streams and graphs of a GPU that is not there; a step that is recorded computes nothing but is replayed."""

    def __init__(self, monkeypatch, step, *, records=True):
        self.main = mock.Mock(device=SimpleNamespace(index=0))
        self.current, self.replays, self.is_recording, self._records = self.main, 0, False, records
        self._step = step
        self.generator = mock.Mock()
        fakes = {
            "Stream": lambda device: mock.Mock(),
            "CUDAGraph": lambda: mock.Mock(replay=self._replay),
            "current_stream": lambda device: self.current,
            "set_stream": lambda stream: setattr(self, "current", stream),
            "stream": self._in_stream,
            "graph": self._recording,
            "graph_pool_handle": lambda: (0, 1),
            "synchronize": lambda device: None,
            "default_generators": (self.generator,),
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)

    def step(self, batch):
        """A step, which cannot be recorded if the device is told so."""
        self.batch = batch
        if not self.is_recording:
            return self._step(batch)
        if not self._records:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        self.loss = torch.zeros(())
        return self.loss

    @contextlib.contextmanager
    def _in_stream(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before

    @contextlib.contextmanager
    def _recording(self, graph, *, pool, stream, capture_error_mode):
        self.current, before, self.is_recording = stream, self.current, True
        try:
            yield
        finally:
            self.is_recording = False
            if not self._records:  # as torch does, which then leaves its stream where it is
                raise RuntimeError("operation failed due to a previous error during capture")
        self.current = before

    def _replay(self):
        self.replays += 1
        self.loss.copy_(self._step(self.batch))


def static_curve(config, monkeypatch, **told):
    """The losses of steps that a GPU takes as a graph, where it can."""
    prepared, stepper, losses = set_up(config)
    without_dropout(prepared.model)
    gpu = FakeGpu(monkeypatch, stepper.update, **told)
    stepper.static = StaticStep(gpu.step, GPU)
    stepper.train(prepared.windows.passes[0])
    return losses, stepper.static, gpu


def test_steps_are_replayed_after_the_warm_up(folder, monkeypatch):
    config = tiny_config(folder, prompt_prefix="reuse", train_samples=52, step_graph=True)
    _, _, eager = curve(config.replace(step_graph=False))
    losses, static, gpu = static_curve(config, monkeypatch)
    assert losses == pytest.approx(eager, rel=1e-6)
    assert (static.taken, gpu.replays) == (6, 6 - WARMUP_STEPS)
    assert static.problem is None


def test_where_no_graph_can_be_recorded_the_run_says_so_and_goes_on(folder, monkeypatch):
    config = tiny_config(folder, prompt_prefix="reuse", train_samples=52, step_graph=True)
    _, _, eager = curve(config.replace(step_graph=False))
    with pytest.warns(UserWarning, match=r"as a CUDA graph \(operation not permitted when stream is capturing\)\. "):
        losses, static, gpu = static_curve(config, monkeypatch, records=False)
    assert losses == pytest.approx(eager, rel=1e-6)
    assert "Steps are launched one by one, with the same numbers." in static.problem
    assert gpu.current is gpu.main
    gpu.generator.graphsafe_set_state.assert_called_once_with(gpu.generator.clone_state())


def test_a_run_notes_why_its_steps_are_no_graph(folder, tmp_path, monkeypatch):
    class Unrecorded(StaticStep):
        def __init__(self, *given):
            super().__init__(*given)
            self.problem = "step_graph: said"

    monkeypatch.setattr(stepping, "StaticStep", Unrecorded)
    config = tiny_config(folder, prompt_prefix="reuse", train_samples=24, val_samples=8, step_graph=True)
    assert "step_graph: said" in TrainingRun(config, options(tmp_path)).run().notes


def test_what_a_step_reads_and_has_not_made_is_kept():
    weight, mask, x = torch.ones(3, 3, requires_grad=True), torch.ones(3), torch.ones(2, 3)
    with OutsideMemory() as outside:
        made = torch.zeros(2, 3)
        ((x @ weight + mask + made).relu() * mask).sum().backward()
    assert {storage.data_ptr() for storage in outside.kept} == {one.data_ptr() for one in (weight, mask, x)}
