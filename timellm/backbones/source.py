"""What is known of a language model before its weights are read, and whether a run fits it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from timellm.backbones.registry import KINDS, Kind
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError, one_line

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_SHAPE_KEYS: dict[str, dict[str, str]] = {
    "gpt2": {"hidden_size": "n_embd", "layers": "n_layer", "vocabulary": "vocab_size", "max_positions": "n_positions"},
    "llama": {
        "hidden_size": "hidden_size",
        "layers": "num_hidden_layers",
        "vocabulary": "vocab_size",
        "max_positions": "max_position_embeddings",
    },
}
_SHAPE_KEYS["bert"] = _SHAPE_KEYS["llama"]
_FORMER_KEYS = {"max_position_embeddings": "max_sequence_length"}
"""What the first LLaMA folders call a setting."""
_CHANGING_ROPE = ("dynamic", "longrope", "su")
"""Rotary embeddings whose frequencies follow the length of the whole input beyond the one trained on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneSource:
    """A language model that was found; its weights are not read yet."""

    name: str
    """Known name in lower case, or the name of the user's folder."""
    kind: Kind
    """gpt2, llama or bert."""
    folder: Path | None
    """Folder of config.json, weights and tokenizer; None for random weights of a built-in shape."""
    checksum: str | None
    """sha256 of the weights, hexadecimal; None for random weights."""
    weights: Literal["pretrained", "random"]
    """Where the numbers come from."""
    hidden_size: int
    """Width of the hidden state."""
    layers: int
    """Layers of the whole model."""
    vocabulary: int
    """Rows of the token embedding."""
    max_positions: int
    """Longest sequence the model was made for, tokens."""
    settings: dict[str, Any] = field(hash=False, repr=False)
    """Contents of config.json."""

    @property
    def label(self) -> str:
        """The name for people; says when the weights are random."""
        return self.name if self.weights == "pretrained" else f"{self.name} (random weights)"

    @property
    def is_causal(self) -> bool:
        """Whether a token sees only those before it, so that keys and values of a prompt can be reused."""
        return self.kind != "bert"

    @property
    def reusable_positions(self) -> int:
        """Longest input whose keys do not depend on its length, tokens."""
        rope = self.settings.get("rope_parameters") or self.settings.get("rope_scaling") or {}
        if not isinstance(rope, dict) or rope.get("rope_type", rope.get("type")) not in _CHANGING_ROPE:
            return self.max_positions
        original = rope.get("original_max_position_embeddings", self.settings.get("original_max_position_embeddings"))
        return original if isinstance(original, int) else self.max_positions

    @property
    def config(self) -> "PretrainedConfig":
        """A new transformers config of the whole model.

        Raises:
            InputError: If transformers refuses the values of config.json.
        """
        try:
            settings = dict(self.settings)
            for key, former in _FORMER_KEYS.items():
                if former in settings:
                    settings.setdefault(key, settings.pop(former))
            return config_class(self.kind).from_dict(settings)
        except Exception as error:  # its validation has no common error type
            raise InputError(unusable_settings(self, error)) from error


def activation_problems(source: BackboneSource) -> list[str]:
    """What is wrong with the activation function that config.json names; transformers looks it up when it builds."""
    from transformers.activations import ACT2FN

    key = "activation_function" if source.kind == "gpt2" else "hidden_act"
    name = getattr(source.config, key)
    if isinstance(name, str) and name in ACT2FN:
        return []
    return [
        f"{key} in config.json of {source.label} must be an activation function of transformers, got {name!r}. "
        f"Use one of {', '.join(sorted(ACT2FN))}: the one that the model was trained with."
    ]


def unusable_settings(source: BackboneSource, error: Exception) -> str:
    """The message for a config.json that no model can be built from."""
    return (
        f"config.json of {source.label} must describe a {source.kind} model, got values that do not fit together "
        f"({one_line(error)}). Save the model again with save_pretrained."
    )


def config_class(kind: Kind) -> type["PretrainedConfig"]:
    """The transformers config class of a type; only its module is imported."""
    if kind == "gpt2":
        from transformers.models.gpt2.configuration_gpt2 import GPT2Config

        return GPT2Config
    if kind == "llama":
        from transformers.models.llama.configuration_llama import LlamaConfig

        return LlamaConfig
    from transformers.models.bert.configuration_bert import BertConfig

    return BertConfig


def kind_of(settings: dict[str, Any], where: str) -> Kind:
    """The type of a model from its config.json.

    Args:
        settings: Contents of config.json.
        where: What the message calls the file.

    Raises:
        InputError: If it is none of the supported types, or quantised.
    """
    kind = settings.get("model_type")
    if kind not in KINDS:
        raise InputError(
            f"model_type must be {', '.join(KINDS[:-1])} or {KINDS[-1]}, got {kind!r} in {where}. "
            "Use a folder of one of these types."
        )
    if settings.get("quantization_config"):
        raise InputError(
            f"The language model must hold plain floating point weights, got quantised ones in {where}. "
            "Use the folder of the model before quantisation."
        )
    return kind


def shape_of(kind: Kind, settings: dict[str, Any], where: str) -> dict[str, int]:
    """Hidden size, layers, vocabulary and positions of a config.json.

    Raises:
        InputError: If one is missing or not a positive whole number.
    """
    shape, problems = {}, []
    for name, key in _SHAPE_KEYS[kind].items():
        value = settings.get(key, settings.get(_FORMER_KEYS.get(key, key)))
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            problems.append(f"{key} must be a whole number above 0, got {value!r} in {where}.")
        else:
            shape[name] = value
    if problems:
        raise InputError([*problems, "Save the model again with save_pretrained."])
    return shape


def check_backbone(config: RunConfig, source: BackboneSource) -> None:
    """Refuse a run that its language model cannot serve.

    Raises:
        InputError: With every mismatch, at once.
    """
    problems = []
    name, hidden_size = source.label, source.hidden_size
    if config.llm_dim is not None and config.llm_dim != hidden_size:
        problems.append(
            f"llm_dim must be the hidden size of {name}, {hidden_size}, got {config.llm_dim}. "
            f"Use --llm_dim {hidden_size} or leave it out."
        )
    if config.d_ff > hidden_size:
        problems.append(
            f"d_ff must be at most the hidden size of {name}, {hidden_size}, got {config.d_ff}. Use a smaller --d_ff."
        )
    problems += layer_problems(config.llm_layers, source)
    problems += activation_problems(source)
    if config.prompt_prefix != "recompute" and not source.is_causal:
        problems.append(
            f"prompt_prefix {config.prompt_prefix} needs a causal language model, got {name}, which looks both ways. "
            "Use --prompt_prefix recompute."
        )
    if problems:
        raise InputError(problems)


def check_positions(config: RunConfig, source: BackboneSource, prompt_tokens: int) -> None:
    """Refuse prompts that are too long for the model, or for keys and values that are kept.

    Args:
        config: The run.
        source: Its language model.
        prompt_tokens: Tokens of its longest prompt.

    Raises:
        InputError: If prompt and patches do not fit.
    """
    tokens = prompt_tokens + config.patches
    found = f"got {prompt_tokens} of the prompt and {config.patches} patches"
    shorter = "Use a shorter --prompt_description or --prompt, --prompt_digits 4, or a smaller --seq_len"
    if tokens > source.max_positions:
        raise InputError(f"{source.name} reads at most {source.max_positions} tokens, {found}. {shorter}.")
    limit = source.reusable_positions
    if config.prompt_prefix != "recompute" and tokens > limit:
        raise InputError(
            f"Keys and values of {source.name} can be kept for inputs of at most {limit} tokens, {found}: beyond that "
            f"its rotary embedding changes all of them. Use --prompt_prefix recompute. {shorter}."
        )


def layer_problems(llm_layers: int, source: BackboneSource) -> list[str]:
    """What is wrong with the number of kept layers: one message or none."""
    if 1 <= llm_layers <= source.layers:
        return []
    return [
        f"llm_layers must be between 1 and {source.layers}, the layers of {source.label}, got {llm_layers}. "
        f"Use --llm_layers {source.layers} or fewer."
    ]
