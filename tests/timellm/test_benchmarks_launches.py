"""What a step asks of a GPU, counted on a CPU."""

import json
import shutil

import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.launches import VARIANTS, count_steps
from benchmarks.variants import PUBLISHED_AMP, Contestant
from tests.timellm.tiny_backbones import GOLDEN
from tests.timellm.tiny_runs import CPU, tiny_config
from timellm.model.layers import ReprogrammingLayer, fused_attention
from timellm.optimize.deepspeed_config import generated_deepspeed_config

MOST = {"reuse bf16 sdpa": 210, "reuse fp32 sdpa": 189, "store bf16 sdpa": 200}
"""Launches of a step with six layers of a GPT-2; benchmarks/launches.md has the figures."""

MOST_OF_A_LLAMA = 400
"""Of a Llama of six layers."""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run on a tiny GPT-2 of six layers."""
    folder = tmp_path_factory.mktemp("tiny")
    settings = json.loads((GOLDEN / "gpt2" / "config.json").read_text()) | {"n_layer": 6}
    transformers.GPT2Model(transformers.GPT2Config.from_dict(settings)).save_pretrained(folder / "gpt2")
    for file in (GOLDEN / "tokenizer").iterdir():
        shutil.copy(file, folder / "gpt2")
    return tiny_config(folder, llm_layers=6, batch_size=2)


def test_a_step_of_a_llama_launches_no_more_than_recorded(tmp_path):
    settings = json.loads((GOLDEN / "llama" / "config.json").read_text()) | {"num_hidden_layers": 6}
    transformers.LlamaModel(transformers.LlamaConfig.from_dict(settings)).save_pretrained(tmp_path / "llama")
    for file in (GOLDEN / "tokenizer").iterdir():
        shutil.copy(file, tmp_path / "llama")
    (variant,) = (one for one in VARIANTS if one.name == "reuse bf16 sdpa")
    counted, _ = count_steps(variant, tiny_config(tmp_path, "llama", llm_layers=6, batch_size=2))
    assert counted.launches.total() <= MOST_OF_A_LLAMA


@pytest.mark.parametrize("name", MOST)
def test_a_step_of_exact_reuse_never_waits_and_launches_no_more_than_recorded(base, name):
    (variant,) = (one for one in VARIANTS if one.name == name)
    counted, _ = count_steps(variant, base)
    assert not counted.waits
    assert counted.launches.total() <= MOST[name]


class Products(TorchDispatchMode):
    """Records the types that matrix products have."""

    def __init__(self, shape):
        super().__init__()
        self.shape, self.types = shape, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in ("mm", "addmm") and tuple(result.shape) in (self.shape, self.shape[::-1]):
            self.types.append(result.dtype)
        return result


def test_the_mapping_layers_gradient_under_autocast_is_computed_in_half_precision_as_published(base):
    contestant = Contestant(PUBLISHED_AMP, base, CPU, 1)
    weight = contestant.model.mapping_layer.weight
    with Products(tuple(weight.shape)) as products:
        contestant.step()
    assert products.types == [torch.bfloat16]


def test_one_kernel_for_the_reprogramming_attention_computes_the_same(monkeypatch):
    torch.manual_seed(0)
    layer = ReprogrammingLayer(d_model=8, n_heads=2, d_ff=16, d_llm=12).eval()
    patches, prototypes = torch.randn(3, 5, 8), torch.randn(7, 12)
    keys, values = layer.keys_values(prototypes)
    plain = layer(patches, keys, values)
    called = []
    monkeypatch.setattr("timellm.model.devices.launches_kernels", lambda device: True)
    monkeypatch.setattr(
        "timellm.model.layers.fused_attention", lambda *given: (called.append(given[3]), fused_attention(*given))[1]
    )
    torch.testing.assert_close(layer(patches, keys, values), plain, rtol=1e-5, atol=1e-6)
    layer.train()
    layer(patches, keys, values)
    assert called == [0.0, 0.1]


def test_deepspeeds_buckets_hold_the_trained_parameters_and_no_more(base):
    zero = generated_deepspeed_config(base, 50_890_000)["zero_optimization"]
    assert zero["reduce_bucket_size"] == zero["allgather_bucket_size"] == 50_890_000


def test_an_engines_autocast_does_not_reach_the_attention_in_fp32(base, monkeypatch):
    from timellm.model import reuse

    contestant = Contestant(VARIANTS[3], base, CPU, 1)
    seen, attend = [], reuse.attend_in_parts
    monkeypatch.setattr(
        reuse, "attend_in_parts", lambda *given: (seen.append(torch.is_autocast_enabled("cpu")), attend(*given))[1]
    )
    batch = contestant.first_batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        contestant.model(batch.x, batch.prompt)
    assert seen == 6 * [False]


def test_every_launch_of_exact_reuse_has_a_place_in_the_step(base):
    (variant,) = (one for one in VARIANTS if one.name == "store bf16 sdpa")
    counted, _ = count_steps(variant, base)
    assert counted.places.total() == counted.launches.total()
    assert counted.places["elsewhere"] == 0
    assert counted.places["blocks: feed-forward, backward"] == 6 * 6
