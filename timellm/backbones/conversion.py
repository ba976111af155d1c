"""Converts a llama-type GGUF file to a transformers folder: `python -m timellm.backbones.conversion FILE FOLDER`."""

import contextlib
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def convert(source: Path, folder: Path) -> None:
    """Write config.json, model.safetensors in float32 and the tokenizer.

    Dequantised values are rarely whole in 16 bits, so float32 is what keeps them as they are.

    Args:
        source: GGUF file.
        folder: Folder to create.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import AutoTokenizer, LlamaForCausalLM
    from transformers.models.llama.configuration_llama import LlamaConfig

    with _read_once():
        loaded = LlamaForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
        tokenizer: Any = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    _split_digits(tokenizer)
    settings = {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    folder.mkdir(parents=True)
    LlamaConfig.from_dict(settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    weights = {name: tensor.contiguous() for name, tensor in loaded.model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@contextlib.contextmanager
def _read_once() -> Iterator[None]:
    """Let transformers read a GGUF file once, not three times, and map its tensors' names once for all modules."""
    import gguf

    names = ("GGUFReader", "get_tensor_name_map")
    plain = {name: getattr(gguf, name) for name in names}
    for name in names:
        setattr(gguf, name, functools.cache(plain[name]))
    try:
        yield
    finally:
        for name in names:
            setattr(gguf, name, plain[name])


def _split_digits(tokenizer: "PreTrainedTokenizerFast") -> None:
    """Give SmolLM2's tokenizer its rule that every digit stands alone, which GGUF names and the reader leaves out."""
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
