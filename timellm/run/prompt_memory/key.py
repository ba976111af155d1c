"""Which runs share prompts: those whose frozen model gives a prompt the same keys and values."""

import hashlib
import json
import os

import torch
from torch import Tensor

from timellm.backbones import BackboneSource
from timellm.contract.config import RunConfig

FORMAT_VERSION = 1
"""Raise it when the files change, or what is computed for a prompt."""

_INSTRUCTION_SETS = ("ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
"""Environment variables that hold a CPU's libraries to fewer instructions than it has."""


def memory_key(
    config: RunConfig, source: BackboneSource, tokenizer_digest: str, product_dtype: torch.dtype, device: torch.device
) -> str:
    """Digest of everything but the prompt itself that its keys and values depend on.

    The number of layers is not among it: a shallower model is the first layers of a deeper one.

    Args:
        config: The run: compute type, attention.
        source: The language model.
        tokenizer_digest: Of the tokenizer that makes its prompts.
        product_dtype: Type that products are computed in.
        device: Where it runs.
    """
    on_gpu = device.type == "cuda"
    return _digest(
        {
            "format": FORMAT_VERSION,
            "weights": source.checksum,
            "settings": source.settings,
            "tokenizer": tokenizer_digest,
            "types": [config.precision, str(product_dtype), config.attention],
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name(device) if on_gpu else torch.backends.cpu.get_cpu_capability(),
            "instructions": None if on_gpu else [os.environ.get(name) for name in _INSTRUCTION_SETS],
        }
    )


def prompt_name(prefix: Tensor, own: Tensor) -> str:
    """Digest of a whole prompt and of where its own tokens begin.

    Args:
        prefix: Ids of the tokens that the model keeps [tokens], int64, on the CPU.
        own: Ids of those that follow [tokens], int64, on the CPU.
    """
    digest = hashlib.blake2b(len(prefix).to_bytes(8, "little"), digest_size=16)
    digest.update(prefix.contiguous().numpy().tobytes())
    digest.update(own.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _digest(values: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:32]
