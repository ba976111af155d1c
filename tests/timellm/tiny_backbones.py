"""Tiny transformers folders of every type, with random weights, for tests."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers

GOLDEN = Path(__file__).parents[1] / "golden"
KINDS = ("gpt2", "llama", "bert")
BASE_CLASSES = {"gpt2": "GPT2Model", "llama": "LlamaModel", "bert": "BertModel"}
HEAD_CLASSES = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM", "bert": "BertForMaskedLM"}


def save_tiny(kind: str, folder: Path, class_name: str | None = None, **options: Any) -> Path:
    """Save a model of the golden cases' shape with transformers, and its tokenizer beside it."""
    settings = json.loads((GOLDEN / kind / "config.json").read_text())
    model_class = getattr(transformers, class_name or BASE_CLASSES[kind])
    torch.manual_seed(0)
    model = model_class(model_class.config_class.from_dict(settings)).eval()
    model.save_pretrained(folder, **options)
    for file in (GOLDEN / "tokenizer").iterdir():
        shutil.copy(file, folder)
    return folder


def whole_model(kind: str, folder: Path, **options: Any) -> Any:
    """The same folder as transformers itself loads it."""
    model_class = getattr(transformers, BASE_CLASSES[kind])
    return model_class.from_pretrained(folder, local_files_only=True, **options).eval()


def tiny_tokens() -> torch.Tensor:
    """Token ids of two short texts [2, 11]."""
    return torch.randint(0, 512, (2, 11), generator=torch.Generator().manual_seed(1))
