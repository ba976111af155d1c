"""Each lever does what it says; a test here fails if a flag did nothing.

Levers with files of their own: compilation without recompiling, accumulation's gradients, reuse and the prompt store in
test_training_numbers; checkpointing in test_model_checkpointing; workers, prefetching and pinning in
test_training_batches; ZeRO-2 and offload in test_training_deepspeed; validations, patience and fidelity in
test_training_run; schedules in test_training_schedule; prompts in test_prompts_*; bands in test_wavelet_embedding.
"""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from tests.timellm.tiny_runs import CPU, options, set_up, tiny_config
from timellm.arguments import build_parser, config_from
from timellm.optimize import engine as engines
from timellm.run.kernels import attention_kernel
from timellm.run.training import TrainingRun

BACKBONES = [
    ("gpt2", "recompute"),
    ("gpt2", "reuse"),
    ("llama", "recompute"),
    ("llama", "reuse"),
    ("bert", "recompute"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


def one_batch(prepared, windows=4):
    return next(iter(prepared.train([prepared.windows.passes[0][:windows]])))


class Products(TorchDispatchMode):
    """Counts the matrix products of linear layers and records their number formats."""

    def __init__(self):
        super().__init__()
        self.formats: set[torch.dtype] = set()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_):
            self.formats.add(out.dtype)
            self.count += 1
        return out


@pytest.mark.parametrize(("kind", "prompt_prefix"), BACKBONES)
@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_backbone_computes_in_the_precision_and_what_is_trained_stays_fp32(
    folder, monkeypatch, kind, prompt_prefix, precision, dtype
):
    monkeypatch.setattr("timellm.run.preparation.product_dtype", lambda dtype, device: dtype)
    config = tiny_config(folder, kind, precision=precision, prompt_prefix=prompt_prefix, train_samples=8)
    prepared, stepper, _ = set_up(config)
    model, products = prepared.model, Products()
    trained = dict(model.trained_parameters())
    assert {part.dtype for name, part in model.named_parameters() if name not in trained} == {dtype}
    read = model.read

    def watched(*given):
        with products:
            return read(*given)

    model.read = watched
    stepper.train(prepared.windows.passes[0])
    assert products.formats == {dtype}
    assert {part.dtype for part in trained.values()} == {torch.float32}
    assert {part.grad.dtype for part in trained.values() if part.grad is not None} <= {torch.float32}


@pytest.mark.parametrize(
    ("on_gpu", "has_bf16", "expected"), [(False, True, "bf16"), (True, True, "bf16"), (True, False, "fp16")]
)
def test_use_amp_takes_bf16_where_the_device_has_it(monkeypatch, on_gpu, has_bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: on_gpu)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bf16 or including_emulation
    )
    assert config_from(build_parser("x", "").parse_args(["--use_amp"])).precision == expected


@pytest.mark.parametrize(("precision", "mixed"), [("fp32", "no"), ("bf16", "no"), ("fp16", "fp16")])
def test_fp16_alone_scales_gradients(folder, monkeypatch, precision, mixed):
    asked = []

    class Recorded(engines.Accelerator):
        def __init__(self, mixed_precision, **given):
            asked.append(mixed_precision)
            super().__init__(**given)  # a CPU has no fp16

    monkeypatch.setattr(engines, "Accelerator", Recorded)
    prepared, _, _ = set_up(tiny_config(folder, train_samples=8))
    engines.PlainEngine(tiny_config(folder, precision=precision), prepared.model, CPU, 1)
    assert asked[-1] == mixed


@pytest.mark.parametrize(("accumulation_steps", "updates"), [(1, 6), (2, 3), (4, 2)])
def test_one_update_and_one_step_of_the_schedule_per_global_batch(folder, monkeypatch, accumulation_steps, updates):
    config = tiny_config(folder, accumulation_steps=accumulation_steps, train_samples=48)
    prepared, stepper, losses = set_up(config)
    engine, calls = stepper.engine, []
    for part in (engine.optimizer, engine.schedule):
        step = part.step
        monkeypatch.setattr(part, "step", lambda step=step: (calls.append(1), step())[1])
    stepper.train(prepared.windows.passes[0])
    assert len(calls) == 2 * updates
    assert len(losses) == stepper.steps_done == updates


@pytest.mark.parametrize(("kind", "prompt_prefix"), BACKBONES)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_attention_kernel_is_the_one_asked_for(folder, monkeypatch, kind, prompt_prefix, attention):
    config = tiny_config(folder, kind, attention=attention, prompt_prefix=prompt_prefix, train_samples=8)
    prepared, _, _ = set_up(config)
    fused, calls = F.scaled_dot_product_attention, []
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: (calls.append(1), fused(*a, **k))[1])
    batch = one_batch(prepared)
    prepared.model(batch.x, batch.prompt)
    blocks, own = config.llm_layers, prompt_prefix == "reuse"  # a prompt's own tokens stop before the last block
    assert len(calls) == (0 if attention == "eager" else 2 * blocks - 1 if own else blocks)


def test_every_run_of_a_process_is_compiled(folder, tmp_path, monkeypatch):
    graphs = []

    def counting(graph, inputs):
        graphs.append(1)
        return graph.forward

    monkeypatch.setattr(
        "timellm.model.timellm.compiled",
        lambda forward, *_, **__: torch.compile(forward, backend=counting, dynamic=False),
    )
    config = tiny_config(folder, compile_mode="default", prompt_prefix="reuse", train_samples=16, val_samples=8)
    counts = []
    with torch._dynamo.config.patch(recompile_limit=2):
        for _ in range(3):
            assert TrainingRun(config, options(tmp_path)).run().state == "complete"
            counts.append(len(graphs))
    assert counts == [counts[0], 2 * counts[0], 3 * counts[0]]
    assert counts[0] > 0


@pytest.mark.parametrize(("kind", "prompt_prefix"), BACKBONES)
def test_the_kernel_that_ran_is_reported(folder, kind, prompt_prefix):
    common = {"prompt_prefix": prompt_prefix, "train_samples": 8}
    found = {}
    for attention in ("eager", "sdpa"):
        prepared, _, _ = set_up(tiny_config(folder, kind, attention=attention, **common))
        batch, state = prepared.train.cut_here(prepared.windows.passes[0][:3]), torch.get_rng_state()
        found[attention] = attention_kernel(prepared.model, batch, attention)
        assert torch.equal(torch.get_rng_state(), state)
        assert prepared.model.training
    assert found["eager"] == "eager"
    assert set(found["sdpa"].split(", ")) <= {"flash_attention_for_cpu", "math"}
    with sdpa_kernel(SDPBackend.MATH):
        assert attention_kernel(prepared.model, batch, "sdpa") == "math"


@pytest.mark.parametrize("prompt_prefix", ["recompute", "reuse"])
@pytest.mark.parametrize("llm_layers", [1, 2, 3])
def test_as_many_layers_run_as_are_asked_for(folder, prompt_prefix, llm_layers):
    config = tiny_config(folder, llm_layers=llm_layers, prompt_prefix=prompt_prefix, prompt="none", train_samples=8)
    prepared, _, _ = set_up(config)
    batch, products = one_batch(prepared), Products()
    with products:
        prepared.model.read(torch.randn(4, config.patches, 48), batch.prompt)
    assert len(prepared.model.llm_model.h) == llm_layers
    assert products.count == 4 * llm_layers  # of attention two, of the feed-forward network two


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
@pytest.mark.parametrize("tune_layer_norm", [False, True])
def test_layer_norms_of_the_backbone_train_if_asked_and_nothing_else_of_it(folder, kind, tune_layer_norm):
    prepared, stepper, _ = set_up(tiny_config(folder, kind, tune_layer_norm=tune_layer_norm, train_samples=16))
    before = {name: value.clone() for name, value in prepared.model.llm_model.state_dict().items()}
    stepper.train(prepared.windows.passes[0])
    after = prepared.model.llm_model.state_dict()
    changed = [name for name, value in before.items() if not torch.equal(value, after[name])]
    assert bool(changed) == tune_layer_norm
    assert all("ln_" in name or "norm" in name.lower() for name in changed)


@pytest.mark.parametrize("backbone_dropout", [False, True])
def test_the_backbones_own_dropout_is_on_if_asked(folder, backbone_dropout):
    prepared, _, _ = set_up(tiny_config(folder, backbone_dropout=backbone_dropout, train_samples=8))
    model = prepared.model.train()
    inputs = torch.randn(2, 5, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, second = (model.llm_model(inputs_embeds=inputs).last_hidden_state for _ in range(2))
    assert torch.equal(first, second) != backbone_dropout
    model.eval()
    with torch.no_grad():
        first, second = (model.llm_model(inputs_embeds=inputs).last_hidden_state for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(("lr_scaling", "factor"), [("none", 1), ("sqrt", math.sqrt(2)), ("linear", 2)])
def test_the_optimizer_gets_the_scaled_learning_rate(folder, lr_scaling, factor):
    config = tiny_config(folder, lr_scaling=lr_scaling, batch_size=16, accumulation_steps=4, lradj="constant")
    _, stepper, _ = set_up(config.replace(train_samples=64))
    assert stepper.engine.learning_rate == pytest.approx(factor * config.learning_rate)
    assert stepper.engine.optimizer.param_groups[0]["lr"] == pytest.approx(factor * config.learning_rate)


@pytest.mark.parametrize("max_grad_norm", [0.0, 1e-4])
def test_gradients_are_clipped_to_the_norm(folder, monkeypatch, max_grad_norm):
    prepared, stepper, _ = set_up(tiny_config(folder, max_grad_norm=max_grad_norm, train_samples=8))
    norms = []
    parameters = [parameter for _, parameter in prepared.model.trained_parameters()]
    step = stepper.engine.optimizer.step

    def recorded():
        norms.append(torch.nn.utils.get_total_norm([part.grad for part in parameters if part.grad is not None]))
        step()

    monkeypatch.setattr(stepper.engine.optimizer, "step", recorded)
    stepper.train(prepared.windows.passes[0])
    assert (norms[0] <= 1.01e-4) == (max_grad_norm > 0)


@pytest.mark.parametrize(
    ("settings", "kind", "fused", "decay"),
    [
        ({}, torch.optim.Adam, None, 0),
        ({"prompt_prefix": "reuse"}, torch.optim.Adam, True, 0),
        ({"prompt_prefix": "reuse", "fused_optimizer": False}, torch.optim.Adam, None, 0),
        ({"optimizer": "adamw", "weight_decay": 0.1, "fused_optimizer": True}, torch.optim.AdamW, True, 0.1),
    ],
)
def test_the_optimizer_is_the_one_asked_for(folder, settings, kind, fused, decay):
    optimizer = engines.build_optimizer(tiny_config(folder, **settings), [torch.nn.Parameter(torch.zeros(1))])
    assert type(optimizer) is kind
    assert (optimizer.defaults["fused"], optimizer.defaults["weight_decay"]) == (fused, decay)


@pytest.mark.parametrize(
    ("settings", "name", "shape"),
    [
        ({"d_model": 24}, "patch_embedding.value_embedding", (24, 16, 3)),
        ({"d_ff": 16}, "reprogramming_layer.query_projection", (8 * 16, 16)),
        ({"n_heads": 2}, "reprogramming_layer.query_projection", (2 * 32, 16)),
        ({"patch_len": 8}, "patch_embedding.value_embedding", (16, 8, 3)),
        ({"stride": 4}, "output_projection", (24, 32 * 10)),
        ({"num_prototypes": 20}, "mapping_layer", (20, 512)),
    ],
)
def test_a_width_is_the_one_asked_for(folder, settings, name, shape):
    prepared, _, _ = set_up(tiny_config(folder, **settings, train_samples=8))
    found = [tuple(part.shape) for key, part in prepared.model.trained_parameters() if key.startswith(name)]
    assert shape in found


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_dropout_of_embedding_and_head_is_the_one_asked_for(folder, dropout):
    prepared, _, _ = set_up(tiny_config(folder, dropout=dropout, train_samples=8))
    model = prepared.model
    for part in (model.patch_embedding, model.output_projection):
        assert [module.p for module in part.modules() if isinstance(module, torch.nn.Dropout)] == [dropout]
