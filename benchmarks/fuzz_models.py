"""Odd language models of one run: folders whose settings, weights or tokenizer are damaged, missing or another's."""

import functools
import json
import random
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.fuzz_runs import SMALL, run_case
from benchmarks.fuzzing import Case, Maker, damaged

_VALUES: tuple[Any, ...] = (
    None, True, 0, 1, -1, 3, 2.5, 10**6, 2**70, float("nan"), float("inf"), "", "x", "gelu", "float16", [], {}, [1],
    {"rope_type": "x"}, {"rope_type": "longrope"}, {"type": "linear", "factor": "x"}, "gpt2", "bert", "llama",
    "gpt_neox",
)  # fmt: skip


@functools.cache
def _template(kind: str) -> dict[str, bytes]:
    """The files of a sound folder: one layer, eight wide, and a tokenizer of letters."""
    import torch
    import transformers

    classes = {"gpt2": "GPT2", "llama": "Llama", "bert": "Bert"}
    shape: dict[str, Any] = {"vocab_size": 260, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape |= {"intermediate_size": 32, "max_position_embeddings": 1024}
    config = getattr(transformers, f"{classes[kind]}Config")(**shape)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        getattr(transformers, f"{classes[kind]}Model")(config).save_pretrained(folder)
        _tokenizer().save_pretrained(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<end>"]
    model = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=model, eos_token="<end>")


def make_model(draw: random.Random, folder: Path) -> Case:
    """A transformers folder with some files changed, cut off, moved or missing."""
    kind = draw.choice(["gpt2", "llama", "bert"])
    model = folder / draw.choice(["model", "model", "100%", "a b", "gpt2"])
    model.mkdir()
    for name, content in _template(kind).items():
        (model / name).write_bytes(content)
    for _ in range(draw.choice([0, 1, 1, 1, 2])):
        draw.choice(_FAULTS)(draw, model)
    words = [*SMALL, "--llm_layers", "1", "--d_ff", "16", "--prompt_description", "x"]
    words += draw.choice([["--llm_model", str(model)], ["--llm_model", kind, "--llm_path", str(model)]])
    return run_case([*words, *draw.choice([[], [], ["--prompt_prefix", "reuse"], ["--llm_dim", "32"]])])


def _change_settings(draw: random.Random, model: Path) -> None:
    """Other values of a JSON file's keys, or none."""
    path = draw.choice([path for path in model.iterdir() if path.suffix == ".json"] or [model / "config.json"])
    try:
        values = json.loads(path.read_text())
        name = draw.choice(list(values))
    except (OSError, ValueError, IndexError, TypeError):
        return
    if not isinstance(values, dict):
        return
    if draw.random() < 0.7:
        values[name] = draw.choice(_VALUES)
    else:
        del values[name]
    more = ("rope_scaling", "rope_parameters", "max_sequence_length", "quantization_config", "auto_map", "num_experts")
    if draw.random() < 0.2:
        values[draw.choice(more)] = draw.choice(_VALUES)
    path.write_text(json.dumps(values))


def _damage_file(draw: random.Random, model: Path) -> None:
    path = draw.choice(sorted(path for path in model.iterdir() if path.is_file()))
    path.write_bytes(damaged(draw, draw.choice([b"", b"{}", b"[]", b"garbage" * 99, path.read_bytes()])))


def _remove_file(draw: random.Random, model: Path) -> None:
    path = draw.choice(sorted(model.iterdir()))
    if path.is_file():
        path.unlink()
    if draw.random() < 0.3 and not path.exists():
        draw.choice([Path.mkdir, lambda one: one.symlink_to("/dev/zero"), lambda one: one.symlink_to(one)])(path)


def _change_weights(draw: random.Random, model: Path) -> None:
    """Tensors that are missing, of another shape or type, or not finite, in either format."""
    import torch
    from safetensors.torch import load_file, save_file

    path = model / "model.safetensors"
    try:
        tensors = load_file(path)
    except Exception:  # another fault has damaged it
        return
    name = draw.choice(sorted(tensors))
    change: Callable[[Any], Any] = draw.choice(
        [lambda one: one * float("nan"), lambda one: one.half(), lambda one: one.long(), lambda one: one[:1],
         lambda one: one.flatten(), lambda one: one + 1e38, lambda one: one[:0],
         lambda one: one.to(torch.float8_e4m3fn)]
    )  # fmt: skip
    if draw.random() < 0.3:
        del tensors[name]
    else:
        tensors[name] = change(tensors[name]).contiguous()
    path.unlink()
    if draw.random() < 0.7:
        save_file(tensors, path)
    else:
        odd = draw.choice(
            [tensors, [tensors], {"state_dict": tensors}, {1: torch.zeros(1)}, "text", {**tensors, name: 7}]
        )
        torch.save(odd, model / "pytorch_model.bin")


def _shard(draw: random.Random, model: Path) -> None:
    """An index of shards: whole, of missing files, or of files elsewhere."""
    path = model / "model.safetensors"
    if not path.is_file():
        return
    shard = draw.choice(
        ["model-00001-of-00001.safetensors", "missing.safetensors", "../x.safetensors", "/dev/zero", ""]
    )
    path.rename(model / "model-00001-of-00001.safetensors")
    index = draw.choice(
        [{"weight_map": {"a": shard}}, {"weight_map": {}}, {"weight_map": [shard]}, {}, [], {"weight_map": {"a": 1}}]
    )
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


_FAULTS: tuple[Callable[[random.Random, Path], None], ...] = (
    _change_settings, _change_settings, _change_settings, _damage_file, _remove_file, _change_weights, _change_weights,
    _shard,
)  # fmt: skip

KINDS: Mapping[str, Maker] = {"model": make_model}
"""Kinds of language models."""
