"""Converts a llama-type GGUF file to a transformers folder: `python -m timellm.backbones.conversion FILE FOLDER`."""

import functools
import sys
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
    import gguf
    import torch
    from safetensors.torch import save_file
    from transformers import AutoTokenizer, LlamaForCausalLM
    from transformers.models.llama.configuration_llama import LlamaConfig

    # transformers reads the file three times, and maps all names anew for each module: half of the time, for nothing.
    gguf.GGUFReader = functools.cache(gguf.GGUFReader)  # type: ignore[misc, assignment]
    gguf.get_tensor_name_map = functools.cache(gguf.get_tensor_name_map)
    loaded = LlamaForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    _split_digits(tokenizer)
    settings = {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    folder.mkdir(parents=True)
    LlamaConfig.from_dict(settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    weights = {name: tensor.contiguous() for name, tensor in loaded.model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


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
