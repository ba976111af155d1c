import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.timellm.tiny_backbones import BASE_CLASSES, GOLDEN, HEAD_CLASSES, KINDS, save_tiny, tiny_tokens, whole_model
from timellm.backbones import BackboneSource, load_backbone, resolve_backbone
from timellm.contract.errors import InputError


def resolve(folder: Path, tmp_path: Path, **options: Any) -> BackboneSource:
    return resolve_backbone(str(folder), cache_dir=tmp_path / "cache", **options)


def hidden_state(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=tiny_tokens()).last_hidden_state


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_cut_model_equals_the_one_transformers_loads(
    kind: str, head: bool, attention: Any, dtype: torch.dtype, tmp_path: Path
) -> None:
    folder = save_tiny(kind, tmp_path / "m", (HEAD_CLASSES if head else BASE_CLASSES)[kind])
    model = load_backbone(resolve(folder, tmp_path), llm_layers=2, dtype=dtype, attention=attention)
    expected = whole_model(kind, folder, num_hidden_layers=2, attn_implementation=attention, dtype=dtype)
    assert torch.equal(hidden_state(model), hidden_state(expected))
    buffers = dict(expected.named_buffers())
    for name, buffer in model.named_buffers():
        assert buffer.dtype == buffers[name].dtype
        assert torch.equal(buffer, buffers[name])
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert model.config._attn_implementation == attention


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_final_norm_follows_the_last_kept_layer(kind: str, tmp_path: Path) -> None:
    folder = save_tiny(kind, tmp_path / "m")
    whole = whole_model(kind, folder, attn_implementation="eager")
    with torch.no_grad():
        states = whole(input_ids=tiny_tokens(), output_hidden_states=True).hidden_states
        norm = whole.ln_f if kind == "gpt2" else whole.norm
        for layers in (1, 2):
            model = load_backbone(resolve(folder, tmp_path), llm_layers=layers)
            torch.testing.assert_close(hidden_state(model), norm(states[layers]))
        model = load_backbone(resolve(folder, tmp_path), llm_layers=3)
        torch.testing.assert_close(hidden_state(model), states[3])


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_have_the_published_names(kind: str, tmp_path: Path) -> None:
    model = load_backbone(resolve(save_tiny(kind, tmp_path / "m"), tmp_path), llm_layers=3)
    names = {f"llm_model.{name}" for name in model.state_dict()}
    assert names == {name for name in np.load(GOLDEN / kind / "weights.npz") if name.startswith("llm_model.")}


def test_model_is_frozen_and_in_evaluation_mode(tmp_path: Path) -> None:
    model = load_backbone(resolve(save_tiny("gpt2", tmp_path / "m"), tmp_path), llm_layers=3)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_bert_without_a_pooler_loads_without_one(tmp_path: Path) -> None:
    folder = save_tiny("bert", tmp_path / "m", "BertForMaskedLM")
    model = load_backbone(resolve(folder, tmp_path), llm_layers=1)
    assert not any(name.startswith("pooler") for name in model.state_dict())


def test_old_bert_names_of_layer_norms_are_read(tmp_path: Path) -> None:
    folder = save_tiny("bert", tmp_path / "m")
    expected = hidden_state(load_backbone(resolve(folder, tmp_path), llm_layers=3))
    tensors = load_file(folder / "model.safetensors")
    renamed = {
        f"bert.{name.replace('LayerNorm.weight', 'LayerNorm.gamma').replace('LayerNorm.bias', 'LayerNorm.beta')}": value
        for name, value in tensors.items()
    }
    save_file(renamed, folder / "model.safetensors")
    assert torch.equal(hidden_state(load_backbone(resolve(folder, tmp_path), llm_layers=3)), expected)


def test_sharded_weights_are_read(tmp_path: Path) -> None:
    single, sharded = save_tiny("gpt2", tmp_path / "a"), save_tiny("gpt2", tmp_path / "b", max_shard_size="100KB")
    assert (sharded / "model.safetensors.index.json").is_file()
    outputs = [hidden_state(load_backbone(resolve(folder, tmp_path), llm_layers=3)) for folder in (single, sharded)]
    assert torch.equal(*outputs)


@pytest.mark.parametrize("is_zip", [True, False])
def test_pytorch_files_are_read_as_tensors_alone(is_zip: bool, tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "m", "LlamaForCausalLM")
    expected = hidden_state(load_backbone(resolve(folder, tmp_path), llm_layers=3))
    state = load_file(folder / "model.safetensors")
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=is_zip)
    (folder / "model.safetensors").unlink()
    assert torch.equal(hidden_state(load_backbone(resolve(folder, tmp_path), llm_layers=3)), expected)


class Boom:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("boom"),)


def test_pickle_with_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = save_tiny("gpt2", tmp_path / "m")
    (folder / "model.safetensors").unlink()
    source_file = folder / "pytorch_model.bin"
    for write in (lambda: torch.save({"wte.weight": Boom()}, source_file), lambda: pickle_to(source_file)):
        write()
        with pytest.raises(InputError, match="must hold tensors alone"):
            load_backbone(resolve(folder, tmp_path), llm_layers=1)
    assert not (tmp_path / "boom").exists()


def pickle_to(path: Path) -> None:
    path.write_bytes(pickle.dumps({"wte.weight": Boom()}))


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_damaged_weights_are_refused_in_one_line(damage: str, name: str, tmp_path: Path) -> None:
    folder = save_tiny("gpt2", tmp_path / "m")
    if name == "pytorch_model.bin":
        torch.save(load_file(folder / "model.safetensors"), folder / name)
        (folder / "model.safetensors").unlink()
    data = (folder / name).read_bytes()
    damaged = {"cut": data[: len(data) // 2], "garbage": b"\x80\x04" + b"x" * 999, "empty": b""}
    (folder / name).write_bytes(damaged[damage])
    with pytest.raises(InputError, match=r"is damaged or not a weight file|must hold tensors alone") as caught:
        load_backbone(resolve(folder, tmp_path), llm_layers=1)
    assert "\n" not in str(caught.value)


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    folder = save_tiny("gpt2", tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if not name.startswith("h.1.")}
    save_file(kept, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"got none for h\.1\.ln_1\.weight, .* and 9 more"):
        load_backbone(resolve(folder, tmp_path), llm_layers=2)
    load_backbone(resolve(folder, tmp_path), llm_layers=1)


def test_tensors_of_another_shape_or_type_are_named(tmp_path: Path) -> None:
    folder = save_tiny("gpt2", tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    tensors["wpe.weight"] = tensors["wpe.weight"][:100].clone()
    tensors["ln_f.bias"] = tensors["ln_f.bias"].to(torch.int8)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"wpe\.weight \(512, 48\) \(is \(100, 48\).*ln_f\.bias .*int8"):
        load_backbone(resolve(folder, tmp_path), llm_layers=1)


def test_config_whose_values_do_not_fit_together_is_refused(tmp_path: Path) -> None:
    folder = save_tiny("gpt2", tmp_path / "m")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "n_head": 5}))
    with pytest.raises(InputError, match=r"config\.json of m must describe a gpt2 model"):
        load_backbone(resolve(folder, tmp_path), llm_layers=1)


@pytest.mark.parametrize("layers", [0, 4])
def test_more_layers_than_there_are_is_refused(layers: int, tmp_path: Path) -> None:
    source = resolve(save_tiny("gpt2", tmp_path / "m"), tmp_path)
    with pytest.raises(InputError, match=f"llm_layers must be between 1 and 3, the layers of m, got {layers}"):
        load_backbone(source, llm_layers=layers)


@pytest.mark.parametrize("kind", KINDS)
def test_random_weights_are_seeded_and_leave_the_global_generator_alone(kind: str, tmp_path: Path) -> None:
    folder = save_tiny(kind, tmp_path / "m")
    (folder / "model.safetensors").unlink()
    source = resolve(folder, tmp_path, llm_weights="random")
    before = torch.get_rng_state()
    first = hidden_state(load_backbone(source, llm_layers=2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(hidden_state(load_backbone(source, llm_layers=2)), first)
    assert not torch.equal(hidden_state(load_backbone(source, llm_layers=2, seed=1)), first)
    low = load_backbone(source, llm_layers=2, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in low.parameters()} == {torch.bfloat16}


def test_weights_do_not_follow_the_file_once_loaded(tmp_path: Path) -> None:
    folder = save_tiny("gpt2", tmp_path / "m")
    model = load_backbone(resolve(folder, tmp_path), llm_layers=3)
    before = hidden_state(model)
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-50_000, 2)
        file.write(b"\0" * 50_000)
    assert torch.equal(hidden_state(model), before)
    shutil.rmtree(folder)
    assert torch.equal(hidden_state(model), before)
