import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.timellm.tiny_backbones import save_tiny
from tests.timellm.tiny_runs import tiny_config
from timellm.backbones import check_positions, load_backbone, load_tokenizer, resolve_backbone
from timellm.check import check_run
from timellm.contract.errors import InputError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TIMELLM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def refusal(config, variants=()) -> str:
    with pytest.raises(InputError) as caught:
        check_run(config, variants)
    assert len(caught.value.problems) == 1
    return str(caught.value)


def change_tensors(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_a_sound_run_passes_and_is_read_once(folder, kind, monkeypatch):
    config = tiny_config(folder, kind)
    assert check_run(config)["backbone"]["kind"] == kind
    monkeypatch.setattr("timellm.backbones.load.tensor_readers", lambda files: pytest.fail("read again"))
    check_run(config)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_name_tensor_and_file(folder, value):
    config = tiny_config(folder, "gpt2")

    def spoil(tensors):
        tensors["h.1.mlp.c_fc.weight"][0, 0] = value

    change_tensors(folder / "gpt2" / "model.safetensors", spoil)
    message = refusal(config)
    assert "must be finite, got NaN or infinite values in h.1.mlp.c_fc.weight (model.safetensors)" in message
    with pytest.raises(InputError, match="must be finite"):
        load_backbone(resolve_backbone("gpt2", str(folder / "gpt2")), llm_layers=2)
    assert check_run(config.replace(llm_layers=1))["backbone"]["kind"] == "gpt2"


def test_large_but_finite_weights_pass(folder):
    config = tiny_config(folder, "gpt2")

    def enlarge(tensors):
        tensors["h.0.mlp.c_fc.weight"].fill_(3e38)

    change_tensors(folder / "gpt2" / "model.safetensors", enlarge)
    check_run(config)


@pytest.mark.parametrize("name", ["h.0.attn.c_attn.weight", "wte.weight", "ln_f.bias"])
def test_missing_tensors_are_found_before_a_start(folder, name):
    config = tiny_config(folder, "gpt2")
    change_tensors(folder / "gpt2" / "model.safetensors", lambda tensors: tensors.pop(name))
    assert f"got none for {name}" in refusal(config)


def test_damaged_weights_are_found_before_a_start(folder):
    config = tiny_config(folder, "gpt2")
    path = folder / "gpt2" / "model.safetensors"
    path.write_bytes(b"garbage" * 999)
    assert "is damaged or not a weight file" in refusal(config)


@pytest.mark.parametrize(
    ("kind", "key"), [("gpt2", "activation_function"), ("llama", "hidden_act"), ("bert", "hidden_act")]
)
def test_an_unknown_activation_is_found_before_a_start(folder, kind, key):
    config = tiny_config(folder, kind)
    check_run(config)  # weights that were found sound do not excuse a later config.json
    path = next(folder.rglob("config.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), key: "swish9"}))
    assert f"{key} in config.json of" in (said := refusal(config))
    assert "got 'swish9'" in said


def test_weights_too_large_for_the_compute_type_are_named(folder):
    """They would become infinite as they are cast, and the run would count as diverged."""
    config = tiny_config(folder, "gpt2")
    path = folder / "gpt2" / "model.safetensors"
    change_tensors(path, lambda tensors: tensors.update({"wpe.weight": tensors["wpe.weight"].double() + 1e300}))
    assert "must fit float32, got values above 3.4e+38 in wpe.weight" in refusal(config)
    change_tensors(path, lambda tensors: tensors.update({"wpe.weight": (tensors["wpe.weight"] * 0 + 1e5).float()}))
    check_run(config)
    with pytest.raises(InputError, match=r"must fit float16, got values above .* in wpe.weight.*--precision fp32"):
        load_backbone(resolve_backbone("gpt2", str(folder / "gpt2")), llm_layers=1, dtype=torch.float16)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama", {"num_attention_heads": 0}),
        ("llama", {"pad_token_id": 10**6}),
        ("llama", {"intermediate_size": -1}),
        ("llama", {"rms_norm_eps": math.nan}),
        ("llama", {"rope_theta": 0, "rope_parameters": None}),
        ("llama", {"rope_parameters": {"rope_type": "spiral"}}),
        ("gpt2", {"n_head": 7}),
        ("gpt2", {"n_inner": "many"}),
        ("bert", {"type_vocab_size": None}),
    ],
)
def test_a_config_that_no_model_can_be_built_from_is_found_before_a_start(folder, kind, changes):
    config = tiny_config(folder, kind)
    check_run(config)  # weights that were found sound do not excuse a later config.json
    path = next(folder.rglob("config.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    assert "config.json" in refusal(config)


@pytest.mark.parametrize(
    "content", [b"0", b"a", b"\x80\x02.", b"\x80\x02h\x07.", b"(" * 99, b"\x80\x04\x95" + b"\xff" * 8]
)
def test_any_pickle_that_is_no_model_is_one_line(folder, content):
    config = tiny_config(folder, "gpt2")
    (folder / "gpt2" / "model.safetensors").unlink()
    (folder / "gpt2" / "pytorch_model.bin").write_bytes(content)
    assert "pytorch_model.bin" in refusal(config)


def test_a_config_that_is_nested_without_end_is_one_line(folder):
    config = tiny_config(folder, "gpt2")
    (folder / "gpt2" / "config.json").write_text('{"a":' * 100_000)
    assert "must be JSON of a few levels" in refusal(config)


def test_a_config_may_begin_with_a_byte_order_mark(folder):
    config = tiny_config(folder, "gpt2")
    path = folder / "gpt2" / "config.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    check_run(config)


def test_a_tensor_of_a_type_that_torch_lacks_is_one_line(folder):
    config = tiny_config(folder, "gpt2")
    header = json.dumps({"wte.weight": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}).encode()
    path = folder / "gpt2" / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    with pytest.raises(InputError):
        check_run(config)


def test_a_missing_tokenizer_is_found_before_a_start(folder):
    config = tiny_config(folder, "gpt2")
    for file in (folder / "gpt2").glob("tokenizer*"):
        file.unlink()
    assert "must hold its tokenizer" in refusal(config)


def test_a_prompt_longer_than_the_positions_is_found_before_a_start(folder):
    config = tiny_config(folder, "gpt2")
    positions = resolve_backbone("gpt2", str(folder / "gpt2")).max_positions
    message = refusal(config.replace(prompt_description="word " * positions))
    assert f"gpt2 reads at most {positions} tokens, got " in message
    assert "--prompt_description" in message
    assert "--prompt_digits 4" in message


def test_patches_alone_must_fit_the_positions(folder):
    config = tiny_config(folder, "llama", prompt="none")
    path = folder / "llama" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "max_position_embeddings": 5}))
    assert "llama reads at most 5 tokens, got 0 of the prompt and 6 patches" in refusal(config)


def test_layers_of_variants_are_read_too(folder):
    """A search does not know yet how many layers its trials will have."""
    config = tiny_config(folder, "gpt2", llm_layers=1)

    def spoil(tensors):
        tensors["h.1.mlp.c_fc.weight"][0, 0] = float("nan")

    change_tensors(folder / "gpt2" / "model.safetensors", spoil)
    check_run(config)
    assert "h.1.mlp.c_fc.weight" in refusal(config, [{"llm_layers": 99}])


def test_prompts_of_variants_are_looked_at_too(folder):
    config = tiny_config(folder, "gpt2", prompt="none", prompt_description="word " * 3000)
    check_run(config)
    assert "reads at most" in refusal(config, [{"prompt": "official"}, {"prompt": "official", "batch_size": 4}])


def test_an_old_llama_folder_loads(folder):
    """The first LLaMA folders say max_sequence_length, and pad with -1."""
    save_tiny("llama", folder / "llama")
    path = folder / "llama" / "config.json"
    settings = json.loads(path.read_text())
    settings["max_sequence_length"] = settings.pop("max_position_embeddings")
    settings["pad_token_id"] = -1
    settings["architectures"] = ["LLaMAForCausalLM"]
    path.write_text(json.dumps(settings))
    source = resolve_backbone("llama", str(folder / "llama"))
    assert source.max_positions == settings["max_sequence_length"]
    assert source.config.max_position_embeddings == settings["max_sequence_length"]
    sound = save_tiny("llama", folder / "sound")
    ids = torch.arange(5)[None]
    old, new = (load_backbone(resolve_backbone("llama", str(at)), llm_layers=2) for at in (folder / "llama", sound))
    torch.testing.assert_close(old(ids).last_hidden_state, new(ids).last_hidden_state)


@pytest.mark.parametrize("name", ["LLaMATokenizer", "LlamaTokenizer"])
def test_the_tokenizer_of_an_old_llama_folder_loads(folder, name):
    save_tiny("llama", folder / "llama")
    path = folder / "llama" / "tokenizer_config.json"
    settings = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**settings, "tokenizer_class": name}))
    assert load_tokenizer(resolve_backbone("llama", str(folder / "llama"))).is_fast


@pytest.mark.parametrize("place", ["rope_parameters", "rope_scaling"])
@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_keys_are_not_kept_where_the_rotary_embedding_changes_with_the_length(folder, place, kind):
    save_tiny("llama", folder / "llama")
    path = folder / "llama" / "config.json"
    settings = json.loads(path.read_text())
    settings[place] = {"rope_type": kind, "original_max_position_embeddings": 100, "rope_theta": 10000.0}
    if place == "rope_scaling":
        settings.pop("rope_parameters", None)
    path.write_text(json.dumps(settings))
    source = resolve_backbone("llama", str(folder / "llama"))
    config = tiny_config(folder, "llama", prompt_prefix="reuse")
    check_positions(config, source, 100 - config.patches)
    check_positions(config.replace(prompt_prefix="recompute"), source, 101 - config.patches)
    with pytest.raises(InputError, match=r"kept for inputs of at most 100 tokens.*--prompt_prefix recompute"):
        check_positions(config, source, 101 - config.patches)
    shutil.rmtree(folder / "llama")
