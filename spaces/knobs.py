"""The knobs that a search space may hold: kind, range, and what the machine must have for a value."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Value = str | int | float | bool
Kind = Literal["choice", "whole", "number", "boolean", "text"]

FEATURES = {
    "cuda": "a CUDA device",
    "bf16": "a device that computes in bf16",
    "fp16": "a device that computes in fp16",
    "fast-bf16": "a device whose bf16 products are not slower than those in fp32",
    "fast-fp16": "a device whose fp16 products are not slower than those in fp32",
    "compiler": "a C++ compiler (g++ or clang++ on the path)",
    "deepspeed": "the deepspeed package",
    "causal": "a language model that reads from left to right (gpt2, llama)",
}
"""What a value may need, and its name in a sentence."""


def is_measured(feature: str) -> bool:
    """Whether a feature says that a value pays, as measured, rather than that it can be had at all."""
    return feature.startswith("fast-")


@dataclass(frozen=True, kw_only=True, slots=True)
class KnobType:
    """What values one setting of a run may take."""

    kind: Kind
    """choice and text are strings, whole is int, number is float."""
    choices: tuple[str, ...] = ()
    """Allowed values of a choice."""
    low: float = -math.inf
    """Smallest value of a number."""
    high: float = math.inf
    """Largest value of a number."""
    searched: bool = True
    """Whether a search may vary it; otherwise a space may only fix it."""
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Features of the machine that a value needs, by the value's text."""
    instead: tuple[str, ...] = ()
    """Replacements of a value that the machine lacks, best first."""

    def problem(self, value: object) -> str | None:
        """What is wrong with a value, as the end of a sentence; None if nothing is."""
        if self.kind == "boolean":
            return None if isinstance(value, bool) else f"must be true or false, got {value!r}"
        if self.kind == "choice":
            return None if value in self.choices else f"must be one of {', '.join(self.choices)}, got {value!r}"
        if self.kind == "text":
            return None if isinstance(value, str) else f"must be text, got {value!r}"
        wanted = "a whole number" if self.kind == "whole" else "a number"
        accepted = (int,) if self.kind == "whole" else (int, float)
        if isinstance(value, int) and abs(value) >= 2**63:
            return f"must be {wanted} of at most 64 bits, got one of {value.bit_length()} bits"
        if isinstance(value, bool) or not isinstance(value, accepted) or not math.isfinite(value):
            return f"must be {wanted}, got {value!r}"
        if value < self.low:
            return f"must be at least {self.low:g}, got {value}"
        return f"must be at most {self.high:g}, got {value}" if value > self.high else None

    def parse(self, text: str) -> Value:
        """The value that a command line spells; text that spells none is returned as it is."""
        if self.kind == "boolean":
            return {"true": True, "false": False}.get(text.lower(), text)
        if self.kind in ("whole", "number"):
            try:
                return int(text) if self.kind == "whole" else float(text)
            except ValueError:
                return text
        return text


def value_text(value: Value) -> str:
    """A value as TOML and the command line spell it."""
    return value if isinstance(value, str) else json.dumps(value)


def _choice(*choices: str, **more: object) -> KnobType:
    return KnobType(kind="choice", choices=choices, **more)  # type: ignore[arg-type]


def _whole(low: float, high: float = math.inf, *, searched: bool = True) -> KnobType:
    return KnobType(kind="whole", low=low, high=high, searched=searched)


def _number(low: float, high: float = math.inf, *, searched: bool = True) -> KnobType:
    return KnobType(kind="number", low=low, high=high, searched=searched)


_BOOLEAN = KnobType(kind="boolean")
_WAVELET = KnobType(kind="text")

KNOBS: dict[str, KnobType] = {
    "precision": _choice(
        "fp32", "fp16", "bf16", needs={"fp16": ("fp16",), "bf16": ("bf16",)}, instead=("bf16", "fp16", "fp32")
    ),
    "batch_size": _whole(1),
    "accumulation_steps": _whole(1),
    "lr_scaling": _choice("none", "sqrt", "linear"),
    "llm_layers": _whole(1),
    "num_workers": _whole(0),
    "pin_memory": KnobType(kind="boolean", needs={"true": ("cuda",)}),
    "prefetch_factor": _whole(1),
    "offload_optimizer": _choice(
        "off",
        "none",
        "cpu",
        needs={"none": ("deepspeed",), "cpu": ("deepspeed", "compiler")},
        instead=("none", "off"),
    ),
    "gradient_checkpointing": _BOOLEAN,
    "attention": _choice("eager", "sdpa"),
    "compile_mode": _choice(
        "off",
        "default",
        "reduce-overhead",
        "max-autotune",
        needs={"default": ("compiler",), "reduce-overhead": ("compiler", "cuda"), "max-autotune": ("compiler",)},
        instead=("default", "off"),
    ),
    "prompt_prefix": _choice(
        "recompute", "reuse", "store", needs={"reuse": ("causal",), "store": ("causal",)}, instead=("recompute",)
    ),
    "prompt": _choice("official", "dwt-minimal", "dwt-balanced", "dwt-detailed", "none"),
    "prompt_digits": _choice("full", "4", "2"),
    "prompt_scope": _choice("channel", "span"),
    "dwt_wavelet": _WAVELET,
    "dwt_prompt_level": _whole(1),
    "use_swt": _BOOLEAN,
    "swt_wavelet": _WAVELET,
    "swt_level": _whole(1),
    "use_all_coeffs": _BOOLEAN,
    "optimizer": _choice("adam", "adamw"),
    "fused_optimizer": _BOOLEAN,
    "weight_decay": _number(0),
    "learning_rate": _number(1e-12),
    "lradj": _choice("type1", "COS", "TST", "constant"),
    "max_grad_norm": _number(0),
    "d_model": _whole(1),
    "d_ff": _whole(1),
    "n_heads": _whole(1),
    "dropout": _number(0, 0.999),
    "num_prototypes": _whole(1),
    "patch_len": _whole(1),
    "stride": _whole(1),
    "tune_layer_norm": _BOOLEAN,
    "backbone_dropout": _BOOLEAN,
    "validate_every": _whole(1),
}
"""Settings that a search may vary."""

SETTINGS: dict[str, KnobType] = {
    "seq_len": _whole(1, searched=False),
    "label_len": _whole(0, searched=False),
    "pred_len": _whole(1, searched=False),
    "percent": _whole(1, 100, searched=False),
    "train_epochs": _whole(1, searched=False),
    "patience": _whole(1, searched=False),
    "pct_start": _number(0, 1, searched=False),
    "eval_batch_size": _whole(1, searched=False),
    "warmup_steps": _whole(0, searched=False),
    "prompt_store_gib": _number(0, searched=False),
    "prompt_padding": _choice("masked", "published", searched=False),
    "prompt_description": KnobType(kind="text", searched=False),
    "llm_dim": _whole(1, searched=False),
    "llm_weights": _choice("pretrained", "random", searched=False),
    "deepspeed_config": KnobType(kind="text", searched=False),
    "device": KnobType(kind="text", searched=False),
}
"""Settings that a space may fix but not vary: they change the task, its cost or its machine."""

KNOWN: dict[str, KnobType] = {**KNOBS, **SETTINGS}

GUIDE_BASELINE: dict[str, Value] = {
    "precision": "fp32",
    "batch_size": 32,
    "accumulation_steps": 1,
    "lr_scaling": "none",
    "llm_layers": 6,
    "num_workers": 10,
    "pin_memory": True,
    "prefetch_factor": 2,
    "offload_optimizer": "off",
    "gradient_checkpointing": False,
    "attention": "eager",
    "compile_mode": "off",
    "prompt_prefix": "recompute",
    "prompt": "official",
    "prompt_digits": "full",
    "prompt_scope": "channel",
    "dwt_wavelet": "db4",
    "dwt_prompt_level": 3,
    "use_swt": False,
    "swt_wavelet": "db4",
    "swt_level": 3,
    "use_all_coeffs": False,
    "optimizer": "adam",
    "fused_optimizer": False,
    "weight_decay": 0.0,
    "learning_rate": 1e-4,
    "lradj": "type1",
    "max_grad_norm": 0.0,
    "d_model": 16,
    "d_ff": 32,
    "n_heads": 8,
    "dropout": 0.1,
    "num_prototypes": 1000,
    "patch_len": 16,
    "stride": 8,
    "tune_layer_norm": False,
    "backbone_dropout": False,
    "validate_every": 1,
}
"""The guide's settings of every knob: a space's baseline where it does not say otherwise."""
