"""The configuration of one training run: every default of the product stands here, once."""

import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from timellm.contract.errors import InputError

Precision = Literal["fp32", "fp16", "bf16"]
Prompt = Literal["official", "dwt-minimal", "dwt-balanced", "dwt-detailed", "none"]
Attention = Literal["eager", "sdpa"]
CompileMode = Literal["off", "default", "reduce-overhead", "max-autotune"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Settings of one Time-LLM training run; the defaults are the published ones."""

    # Data
    data: Literal["nyc-weather", "ETTh1", "ETTh2", "ETTm1", "ETTm2", "Weather", "ECL", "Traffic", "custom"] = (
        "nyc-weather"
    )
    """Data set; nyc-weather is embedded, the others are read from root_path/data_path."""
    root_path: str | None = None
    """Folder that holds data_path."""
    data_path: str | None = None
    """CSV file with a date column and numeric columns (default: the data set's published name)."""
    features: Literal["M", "S", "MS"] = "M"
    """M: every column; S: the target alone; MS: trained on every column, judged on the target."""
    target: str | None = None
    """Target column of S and MS (default: OT for published sets, the last column otherwise)."""
    seq_len: int = 96
    """Length of the input window, time steps."""
    label_len: int = 48
    """Rows of the input repeated before the target in published batches, time steps; no effect on the loss."""
    pred_len: int = 96
    """Length of the forecast, time steps."""
    percent: int = 100
    """Share of the training split that is used, percent; the scaler still fits all of it."""

    # Model
    llm_model: str = "smollm2-135m"
    """smollm2-135m (embedded), gpt2, bert, llama (any case), a transformers folder, or none: the control without."""
    llm_path: str | None = None
    """Local transformers folder of llm_model, instead of its hub name."""
    llm_weights: Literal["pretrained", "random"] = "pretrained"
    """random: untrained weights of the true shape, for timing only; every result says so."""
    llm_dim: int | None = None
    """Hidden size of the language model; refused if the backbone's differs (default: the backbone's)."""
    llm_layers: int = 6
    """Layers of the language model that are kept, from the first."""
    d_model: int = 16
    """Width of a patch embedding."""
    n_heads: int = 8
    """Heads of the reprogramming attention."""
    d_ff: int = 32
    """Width of a reprogramming head and of the slice of the hidden state that the forecast is read from."""
    patch_len: int = 16
    """Length of a patch, time steps."""
    stride: int = 8
    """Distance between the starts of neighbouring patches, time steps."""
    dropout: float = 0.1
    """Dropout of the patch embedding and of the head; the reprogramming attention always has 0.1."""
    num_prototypes: int = 1000
    """Text prototypes that the vocabulary is mapped to."""

    # Prompt
    prompt: Prompt = "official"
    """Text that describes a window: official statistics, wavelet statistics of three lengths, or none."""
    prompt_digits: Literal["full", "4", "2"] = "full"
    """Decimals of the numbers in a prompt; fewer make shorter prompts and other numbers."""
    prompt_scope: Literal["channel", "span"] = "channel"
    """One prompt per window and channel, or one per time span shared by its channels."""
    prompt_padding: Literal["masked", "published"] = "masked"
    """masked: a forecast does not depend on its batch neighbours; published: padding is attended to."""
    prompt_prefix: Literal["recompute", "reuse", "store"] = "recompute"
    """recompute: as published; reuse: exact reuse of frozen keys and values; store: also keeps the windows' own."""
    prompt_store_gib: float = 4.0
    """Size limit of the prompt store, GiB."""
    prompt_description: str | None = None
    """Description of the data set in the prompt (default: the data set's own)."""
    dwt_wavelet: str = "db4"
    """Wavelet of the dwt prompts."""
    dwt_prompt_level: int = 3
    """Decomposition level of the dwt prompts."""

    # Wavelet patch embedding
    use_swt: bool = False
    """Embed patches of the stationary wavelet transform's bands."""
    swt_wavelet: str = "db4"
    """Wavelet of the patch embedding."""
    swt_level: int = 3
    """Levels of the stationary wavelet transform."""
    use_all_coeffs: bool = False
    """Use every detail band; otherwise only the coarsest approximation and detail."""

    # Training
    batch_size: int = 32
    """Micro batch per device, windows."""
    eval_batch_size: int | None = None
    """Batch of validation and test, windows (default: batch_size); does not change a number."""
    accumulation_steps: int = 1
    """Micro batches per optimizer step; the global batch is their product."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """Optimizer of the trained parameters."""
    fused_optimizer: bool | None = None
    """One kernel for the whole update (default: with reuse and store, not with recompute, as published)."""
    weight_decay: float = 0.0
    """Weight decay of AdamW."""
    learning_rate: float = 1e-4
    """Learning rate at a global batch of 32."""
    lr_scaling: Literal["none", "sqrt", "linear"] = "none"
    """Scaling of the learning rate with the global batch, relative to 32."""
    lradj: Literal["type1", "COS", "TST", "constant"] = "type1"
    """Schedule: type1 halves every epoch, COS cosine, TST one cycle, constant."""
    pct_start: float = 0.2
    """Share of the run in which the TST schedule warms up."""
    train_epochs: int = 10
    """Passes over the training windows."""
    patience: int = 10
    """Validations without improvement before the run stops."""
    validate_every: int = 1
    """Epochs between validations; one always follows the last epoch."""
    max_grad_norm: float = 0.0
    """Gradient clipping by total norm; 0 is off."""
    tune_layer_norm: bool = False
    """Train the backbone's layer norms too; needs prompt_prefix recompute."""
    backbone_dropout: bool = False
    """Switch on the frozen backbone's own dropout in training, as published; needs prompt_prefix recompute."""
    seed: int = 2021
    """Seed of weights, dropout and of the order of the training windows."""

    # Speed
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Precision = "fp32"
    """Compute type; trained parameters stay fp32, the frozen backbone is stored in it. fp16 scales the loss."""
    attention: Attention = "eager"
    """Attention kernel of the backbone."""
    compile_mode: CompileMode = "off"
    """torch.compile mode; compilation is timed apart."""
    offload_optimizer: Literal["off", "none", "cpu"] = "off"
    """off: no DeepSpeed; none: ZeRO-2; cpu: ZeRO-2 with the optimizer on the CPU."""
    deepspeed_config: str | None = None
    """The user's own DeepSpeed JSON file, instead of the generated one."""
    gradient_checkpointing: bool = False
    """Recompute the backbone's activations in the backward pass: less memory, more time."""
    num_workers: int = 0
    """Processes that load batches; 0 gathers batches from windows held on the device."""
    pin_memory: bool = True
    """Page-locked host memory for loader workers; a GPU setting."""
    prefetch_factor: int = 2
    """Batches that each loader worker prepares ahead."""

    # Fidelity
    train_samples: int | None = None
    """Train on this many windows of the seeded permutation, the schedule stretched to them (default: all)."""
    val_samples: int | None = None
    """Validate on this many windows, one fixed stratified subset (default: every window)."""
    warmup_steps: int = 2
    """Optimizer steps of 32 windows at the start that the timing leaves out; fewer steps where they are bigger."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            InputError: With every problem found, at once.
        """
        problems = [*_type_problems(self), *_range_problems(self), *_conflicts(self)]
        if problems:
            raise InputError(problems)

    @property
    def global_batch(self) -> int:
        """Windows per optimizer step on one device."""
        return self.batch_size * self.accumulation_steps

    @property
    def untimed_steps(self) -> int:
        """Optimizer steps at the start that the timing leaves out; compiled code needs all of warmup_steps."""
        if self.warmup_steps == 0 or self.compile_mode != "off":
            return self.warmup_steps
        return min(self.warmup_steps, max(1, math.ceil(self.warmup_steps * 32 / self.global_batch)))

    @property
    def has_no_backbone(self) -> bool:
        """Whether this is the control without a language model."""
        return self.llm_model.lower() == "none"

    @property
    def patches(self) -> int:
        """Patch tokens of a window: one more than fit, for the replicated end."""
        return (self.seq_len - self.patch_len) // self.stride + 2

    @property
    def scaled_learning_rate(self) -> float:
        """Learning rate after lr_scaling."""
        ratio = self.global_batch / 32
        return self.learning_rate * {"none": 1.0, "sqrt": math.sqrt(ratio), "linear": ratio}[self.lr_scaling]

    @property
    def uses_fused_optimizer(self) -> bool:
        """Whether the update runs as one kernel."""
        if self.fused_optimizer is not None:
            return self.fused_optimizer
        return self.prompt_prefix != "recompute"

    def replace(self, **changes: Any) -> "RunConfig":
        """A copy with some fields changed, checked again."""
        return RunConfig.from_dict({**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Every field by name, as JSON types."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunConfig":
        """The inverse of `to_dict`; fields left out take their defaults.

        Raises:
            InputError: For an unknown key or a bad value.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InputError(f"A run has no setting named {', '.join(unknown)}; see --help for those it has.")
        return cls(**values)

    @classmethod
    def from_json(cls, path: Path) -> "RunConfig":
        """Read a file written from `to_dict`."""
        return cls.from_dict(json.loads(path.read_text()))


def field_types() -> dict[str, Any]:
    """Each field's annotation, resolved."""
    return typing.get_type_hints(RunConfig)


def choices(annotation: Any) -> tuple[Any, ...]:
    """The allowed values of a Literal annotation; empty for any other."""
    return typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()


def plain_type(annotation: Any) -> tuple[type, bool]:
    """The scalar type of a field and whether None is allowed."""
    if isinstance(annotation, types.UnionType):
        inner = [part for part in typing.get_args(annotation) if part is not type(None)]
        return inner[0], True
    return (str, False) if choices(annotation) else (annotation, False)


def _type_problems(config: RunConfig) -> list[str]:
    problems = []
    for name, annotation in field_types().items():
        value, allowed = getattr(config, name), choices(annotation)
        if allowed:
            if value not in allowed:
                problems.append(f"{name} must be one of {', '.join(allowed)}, got {value!r}.")
            continue
        kind, optional = plain_type(annotation)
        if value is None and optional:
            continue
        accepted = (int, float) if kind is float else (kind,)
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            problems.append(f"{name} must be {kind.__name__}, got {value!r}.")
        elif isinstance(value, float) and not math.isfinite(value):
            problems.append(f"{name} must be finite, got {value!r}.")
    return problems


_AT_LEAST = {
    **dict.fromkeys(
        "seq_len pred_len llm_layers d_model n_heads d_ff patch_len stride num_prototypes batch_size "
        "eval_batch_size accumulation_steps train_epochs patience validate_every prefetch_factor "
        "train_samples val_samples swt_level dwt_prompt_level llm_dim".split(),
        1,
    ),
    **dict.fromkeys(
        "label_len num_workers warmup_steps seed weight_decay max_grad_norm dropout prompt_store_gib".split(),
        0,
    ),
}


def _range_problems(config: RunConfig) -> list[str]:
    problems = []
    for name, least in _AT_LEAST.items():
        value = getattr(config, name)
        if isinstance(value, int | float) and value < least:
            problems.append(f"{name} must be at least {least}, got {value}.")
    if isinstance(config.percent, int) and not 1 <= config.percent <= 100:
        problems.append(f"percent must be between 1 and 100, got {config.percent}.")
    if isinstance(config.dropout, int | float) and config.dropout >= 1:
        problems.append(f"dropout must be below 1, got {config.dropout}.")
    if isinstance(config.learning_rate, int | float) and config.learning_rate <= 0:
        problems.append(f"learning_rate must be above 0, got {config.learning_rate}.")
    if isinstance(config.pct_start, int | float) and not 0 < config.pct_start < 1:
        problems.append(f"pct_start must be between 0 and 1, got {config.pct_start}.")
    if isinstance(config.seq_len, int) and isinstance(config.patch_len, int) and config.patch_len > config.seq_len:
        problems.append(
            f"patch_len must be at most seq_len ({config.seq_len}), got {config.patch_len}. Use a smaller --patch_len."
        )
    return problems


def _conflicts(config: RunConfig) -> list[str]:
    problems = []
    if config.prompt_prefix != "recompute":
        for name in ("tune_layer_norm", "backbone_dropout"):
            if getattr(config, name) is True:
                problems.append(
                    f"{name} changes the frozen keys and values, so it needs prompt_prefix recompute, "
                    f"got {config.prompt_prefix}. Drop one of the two."
                )
    if config.prompt == "none" and config.prompt_prefix == "store":
        problems.append("prompt_prefix store keeps prompts, but prompt is none. Use prompt_prefix reuse.")
    if config.has_no_backbone and config.prompt_prefix != "recompute":
        problems.append(
            f"llm_model none has no prompt to keep, so it needs prompt_prefix recompute, got {config.prompt_prefix}."
        )
    if config.data != "nyc-weather" and config.root_path is None and config.data_path is None:
        problems.append(
            f"data {config.data} is read from a file: name its folder with --root_path and its file with --data_path."
        )
    return problems
