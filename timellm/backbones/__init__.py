"""Frozen language models: where they come from, how they are checked, loaded and cut.

`resolve_backbone` finds a model and reads its shape without importing torch or transformers,
`check_backbone` holds a run's settings against that shape, `load_backbone` and `load_tokenizer` read it.
"""

from timellm.backbones.load import check_weights, load_backbone
from timellm.backbones.resolve import resolve_backbone
from timellm.backbones.source import BackboneSource, check_backbone, check_positions
from timellm.backbones.tokenizer import load_tokenizer

__all__ = [
    "BackboneSource",
    "check_backbone",
    "check_positions",
    "check_weights",
    "load_backbone",
    "load_tokenizer",
    "resolve_backbone",
]
