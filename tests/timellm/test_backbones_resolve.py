import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.timellm.tiny_backbones import KINDS, save_tiny
from timellm.backbones import BackboneSource, check_backbone, resolve_backbone
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError


def resolve(llm_model: Any, tmp_path: Path, **options: Any) -> BackboneSource:
    return resolve_backbone(str(llm_model), cache_dir=tmp_path / "cache", **options)


@pytest.mark.parametrize("kind", KINDS)
def test_local_folder_tells_its_shape(kind: str, tmp_path: Path) -> None:
    folder = save_tiny(kind, tmp_path / "my-model")
    source = resolve(folder, tmp_path)
    assert (source.name, source.label, source.kind, source.folder) == ("my-model", "my-model", kind, folder)
    assert (source.hidden_size, source.layers, source.vocabulary, source.max_positions) == (48, 3, 512, 512)
    assert source.checksum == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert source.config.model_type == kind
    assert source.is_causal == (kind != "bert")


def test_llm_path_serves_a_known_name_in_any_case(tmp_path: Path) -> None:
    folder = save_tiny("gpt2", tmp_path / "m")
    source = resolve("GPT2", tmp_path, llm_path=str(folder))
    assert (source.name, source.folder) == ("gpt2", folder)


def test_llm_path_of_another_type_is_refused(tmp_path: Path) -> None:
    folder = save_tiny("bert", tmp_path / "m")
    with pytest.raises(InputError, match="llm_path must hold a gpt2 model for --llm_model gpt2, got bert"):
        resolve("gpt2", tmp_path, llm_path=str(folder))


def test_llm_path_beside_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="llm_path needs a known llm_model"):
        resolve(tmp_path, tmp_path, llm_path=str(tmp_path))


@pytest.mark.parametrize(("model", "path"), [("~nosuchuser/gpt2", None), ("gpt2", "~nosuchuser/gpt2")])
def test_the_home_of_a_user_that_is_not_there_is_refused(model: str, path: str | None) -> None:
    with pytest.raises(InputError, match="must have a user's name after ~, got '~nosuchuser/gpt2'"):
        resolve_backbone(model, path)


def test_missing_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="llm_model must be one of smollm2-135m, gpt2, bert, llama, or a transformers"):
        resolve("gpt5", tmp_path)
    with pytest.raises(InputError, match="llm_path must be a folder, got '/nowhere'"):
        resolve("gpt2", tmp_path, llm_path="/nowhere")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "must hold config.json"),
        ("config.json", "{", "must be a readable JSON file"),
        ("config.json", "[]", "must hold a JSON object, got list"),
        ("config.json", '{"model_type": "opt"}', "model_type must be gpt2, llama or bert, got 'opt'"),
        ("config.json", '{"model_type": "gpt2"}', "n_embd must be a whole number above 0, got None"),
        ("config.json", '{"model_type": "gpt2", "quantization_config": {"bits": 4}}', "got quantised ones"),
        ("model.safetensors", None, "must hold model.safetensors or pytorch_model.bin"),
    ],
)
def test_damaged_folder_is_refused_in_one_line(name: str, content: str | None, message: str, tmp_path: Path) -> None:
    folder = save_tiny("gpt2", tmp_path / "m")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        resolve(folder, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"wte.weight": "model-2.safetensors"}, "got no model-2.safetensors"),
        ({"wte.weight": "../other/model.safetensors"}, "must name files of its own folder"),
        ({}, "must list the weight files in weight_map"),
    ],
)
def test_index_of_missing_or_strange_files_is_refused(weight_map: dict, message: str, tmp_path: Path) -> None:
    folder = save_tiny("gpt2", tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(InputError, match=message):
        resolve(folder, tmp_path)


def test_checksum_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny("gpt2", tmp_path / "m")
    first = resolve(folder, tmp_path).checksum
    with monkeypatch.context() as patch:
        patch.setattr("timellm.backbones.checksum.hashlib.file_digest", lambda *given: pytest.fail("read again"))
        assert resolve(folder, tmp_path).checksum == first
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert resolve(folder, tmp_path).checksum != first


def test_checksum_of_shards_covers_each_of_them(tmp_path: Path) -> None:
    folder = save_tiny("gpt2", tmp_path / "m", max_shard_size="100KB")
    first = resolve(folder, tmp_path).checksum
    shard = sorted(folder.glob("model-*.safetensors"))[-1]
    shard.write_bytes(shard.read_bytes() + b"\0")
    assert resolve(folder, tmp_path).checksum != first


@pytest.mark.parametrize(
    ("name", "hidden_size", "layers", "vocabulary"),
    [("gpt2", 768, 12, 50257), ("BERT", 768, 12, 30522), ("LLAMA", 4096, 32, 32000)],
)
def test_random_weights_take_the_published_shape_and_say_so(
    name: str, hidden_size: int, layers: int, vocabulary: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timellm.backbones.resolve.cached_snapshot", lambda hub_names: None)
    source = resolve(name, tmp_path, llm_weights="random")
    assert source.label == f"{name.lower()} (random weights)"
    assert (source.hidden_size, source.layers, source.vocabulary) == (hidden_size, layers, vocabulary)
    assert (source.folder, source.checksum) == (None, None)
    assert source.config.num_hidden_layers == layers


def test_random_weights_take_the_shape_of_a_folder_without_weights(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "m")
    (folder / "model.safetensors").unlink()
    source = resolve("llama", tmp_path, llm_path=str(folder), llm_weights="random")
    assert (source.label, source.hidden_size, source.folder) == ("llama (random weights)", 48, folder)


def test_every_mismatch_of_a_run_is_told_at_once(tmp_path: Path) -> None:
    source = resolve(save_tiny("bert", tmp_path / "m"), tmp_path)
    config = RunConfig(llm_dim=768, d_ff=49, llm_layers=6, prompt_prefix="reuse")
    with pytest.raises(InputError) as caught:
        check_backbone(config, source)
    starts = ["llm_dim must be the hidden size of m, 48, got 768", "d_ff must be at most", "llm_layers must be between"]
    assert [problem for problem, start in zip(caught.value.problems, starts, strict=False) if start in problem]
    assert len(caught.value.problems) == 4
    check_backbone(RunConfig(llm_dim=48, d_ff=48, llm_layers=3), source)


def test_finding_a_backbone_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    folder = save_tiny("gpt2", tmp_path / "m")
    code = (
        "import sys; from timellm.backbones import resolve_backbone; "
        f"resolve_backbone({str(folder)!r}); print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TIMELLM_CACHE_DIR": str(tmp_path)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
