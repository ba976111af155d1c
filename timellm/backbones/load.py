"""Reads a language model: cut to its first layers, frozen, in evaluation mode."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from timellm.backbones.registry import Kind
from timellm.backbones.source import BackboneSource, activation_problems, layer_problems, unusable_settings
from timellm.backbones.weights import TensorReaders, tensor_readers, weight_files
from timellm.cache import cache_dir
from timellm.contract.errors import InputError

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

_PREFIX: dict[Kind, str] = {"gpt2": "transformer.", "llama": "model.", "bert": "bert."}
_SHOWN = 3  # names in a message about many tensors


def load_backbone(
    source: BackboneSource,
    *,
    llm_layers: int,
    dtype: "torch.dtype | None" = None,
    attention: Literal["eager", "sdpa"] = "eager",
    seed: int = 0,
) -> "PreTrainedModel":
    """The frozen language model, with only its kept layers read from disk.

    As in the published model the final norm follows the last kept layer.

    Args:
        source: What `resolve_backbone` found.
        llm_layers: Layers to keep, from the first.
        dtype: Type of the parameters (default: float32); rotary frequencies stay float32.
        attention: Attention kernel.
        seed: Seed of random weights; pretrained ones do not depend on it.

    Returns:
        GPT2Model, LlamaModel or BertModel on the CPU: no parameter needs a gradient, evaluation mode.

    Raises:
        InputError: If the model has fewer layers, or its files are damaged or lack tensors.
    """
    import torch

    problems = layer_problems(llm_layers, source)
    if problems:
        raise InputError(problems)
    dtype = dtype or torch.float32
    config = source.config
    config.num_hidden_layers = llm_layers
    config._attn_implementation = attention
    config.dtype = dtype
    model = _random(source, config, dtype, seed) if source.weights == "random" else _pretrained(source, config, dtype)
    return model.requires_grad_(False).eval()


def _pretrained(source: BackboneSource, config: "PretrainedConfig", dtype: "torch.dtype") -> "PreTrainedModel":
    from accelerate import init_empty_weights

    assert source.folder is not None
    readers = tensor_readers(weight_files(source.folder))
    with_pooler = source.kind != "bert" or _stored_name("pooler.dense.weight", "bert", readers) is not None
    with init_empty_weights(include_buffers=False):  # buffers are computed, not stored: they must be real
        model = _new_model(source, config, with_pooler)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    model.load_state_dict(_tensors(source, wanted, readers, dtype), assign=True)
    return model


def _random(source: BackboneSource, config: "PretrainedConfig", dtype: "torch.dtype", seed: int) -> "PreTrainedModel":
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _new_model(source, config)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def _new_model(source: BackboneSource, config: "PretrainedConfig", with_pooler: bool = True) -> "PreTrainedModel":
    if problems := activation_problems(source):
        raise InputError(problems)
    import torch

    options = {} if with_pooler else {"add_pooling_layer": False}
    try:
        model = _model_class(source.kind)(config, **options)
        if odd := [name for name, each in model.named_buffers() if not bool(torch.isfinite(each).all())]:
            raise ValueError(f"{', '.join(odd)} would not be finite")  # rotary frequencies
        return model
    except Exception as error:  # of any type: a head count of 0, text for a number, a padding id beyond the vocabulary
        from timellm.machine.memory import is_out_of_memory

        if is_out_of_memory(error):
            raise
        raise InputError(unusable_settings(source, error)) from error


def _model_class(kind: Kind) -> Callable[..., "PreTrainedModel"]:
    """The transformers model of a type; only its module is imported."""
    if kind == "gpt2":
        from transformers.models.gpt2.modeling_gpt2 import GPT2Model

        return GPT2Model
    if kind == "llama":
        from transformers.models.llama.modeling_llama import LlamaModel

        return LlamaModel
    from transformers.models.bert.modeling_bert import BertModel

    return BertModel


def _stored_name(name: str, kind: Kind, readers: TensorReaders) -> str | None:
    """The name under which a checkpoint keeps a tensor; None when it does not.

    A model saved with a head has a prefix; old BERT files call a norm's weight and bias gamma and beta.
    """
    old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    for candidate in (name, _PREFIX[kind] + name, old, _PREFIX[kind] + old):
        if candidate in readers:
            return candidate
    return None


def check_weights(source: BackboneSource, llm_layers: int, cache: Path | None = None) -> None:
    """Read the tensors of the kept layers once and hold them against config.json; what was sound is remembered.

    Args:
        source: What `resolve_backbone` found; random weights and the embedded model, made here, are sound.
        llm_layers: Layers that are kept.
        cache: The cache folder (default: `timellm.cache.cache_dir()`).

    Raises:
        InputError: If a file is damaged, or a tensor is missing, of another shape or not finite.
    """
    if source.weights == "random" or source.folder is None or layer_problems(llm_layers, source):
        return
    settings = hashlib.sha256(json.dumps(source.settings, sort_keys=True).encode()).hexdigest()[:16]
    memory = (cache or cache_dir()) / "checked" / f"{source.checksum}-{settings}-{llm_layers}"
    if memory.is_file():
        return
    import torch
    from accelerate import init_empty_weights

    config = source.config
    config.num_hidden_layers = llm_layers
    files = weight_files(source.folder)
    readers = tensor_readers(files)
    with_pooler = source.kind != "bert" or _stored_name("pooler.dense.weight", "bert", readers) is not None
    with init_empty_weights():
        model = _new_model(source, config, with_pooler)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for _ in _sound_tensors(source, wanted, readers, torch.float32):
        pass
    with contextlib.suppress(OSError):  # then they are read again
        memory.parent.mkdir(parents=True, exist_ok=True)
        memory.touch()


def _tensors(
    source: BackboneSource, wanted: dict[str, tuple[int, ...]], readers: TensorReaders, dtype: "torch.dtype"
) -> "dict[str, torch.Tensor]":
    return {name: tensor.to(dtype, copy=True) for name, tensor in _sound_tensors(source, wanted, readers, dtype)}


def _sound_tensors(
    source: BackboneSource, wanted: dict[str, tuple[int, ...]], readers: TensorReaders, dtype: "torch.dtype"
) -> "Iterator[tuple[str, torch.Tensor]]":
    """The wanted tensors one after the other.

    Raises:
        InputError: After the last one, with all that are missing, of another shape, or not finite in this dtype.
    """
    import torch

    stored = {name: _stored_name(name, source.kind, readers) for name in wanted}
    found = {name: place for name, place in stored.items() if place is not None}
    missing = [name for name in wanted if name not in found]
    if missing:
        raise InputError(
            f"The weights in {source.folder} must hold every tensor of config.json, "
            f"got none for {_listed(missing)}. Save the model again with save_pretrained."
        )
    misshapen, not_finite, too_large = [], [], []
    largest = torch.finfo(dtype).max
    for name, place in found.items():
        tensor = readers[place]()
        if tuple(tensor.shape) != wanted[name] or not tensor.is_floating_point():
            misshapen.append(f"{name} {wanted[name]} (is {tuple(tensor.shape)}, {tensor.dtype})")
            continue
        # One sum tells: it is finite only if every value is, and is taken apart only where it is not.
        if not bool(tensor.sum(dtype=torch.float32).isfinite()) and not bool(tensor.isfinite().all()):
            not_finite.append(f"{name} ({_file_of(place, source)})")
            continue
        if torch.finfo(tensor.dtype).max > largest and max(map(abs, tensor.aminmax())) > largest:
            too_large.append(name)
            continue
        yield name, tensor
    problems = []
    if misshapen:
        problems.append(
            f"The weights in {source.folder} must have the shapes of config.json in floating point, "
            f"got others for {_listed(misshapen)}. Save the model again with save_pretrained."
        )
    if not_finite:
        problems.append(
            f"The weights in {source.folder} must be finite, got NaN or infinite values in {_listed(not_finite)}. "
            "Download or save the model again."
        )
    if too_large:
        problems.append(
            f"The weights in {source.folder} must fit {str(dtype).removeprefix('torch.')}, got values above "
            f"{largest:.3g} in {_listed(too_large)}. Use --precision fp32, or save the model again in float32."
        )
    if problems:
        raise InputError(problems)


def _file_of(place: str, source: BackboneSource) -> str:
    """Name of the weight file that holds a tensor."""
    assert source.folder is not None
    return next((file.name for file in weight_files(source.folder) if place in tensor_readers([file])), "?")


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
