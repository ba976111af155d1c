"""The configuration of one training run: every default of the product stands in this one place."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from timellm.contract.datasets import DATA_SETS
from timellm.contract.declarations import (
    SAME_NUMBERS,
    SAME_TIMES,
    Above,
    AtLeast,
    AtMost,
    Below,
    Declaration,
    Fixable,
    OneOf,
    Searched,
    declarations_of,
    is_number,
    limit_problems,
    type_problems,
)
from timellm.contract.errors import InputError
from timellm.contract.words import shortened

_MOST_AT_ONCE = 10**7
"""Windows of an optimizer step on one device, at most."""

KNOB, FIXABLE = Searched(), Fixable()

Features = Literal["M", "S", "MS"]
Precision = Literal["fp32", "fp16", "bf16", "tf32"]
Prompt = Literal["official", "dwt-minimal", "dwt-balanced", "dwt-detailed", "none"]
Attention = Literal["eager", "sdpa"]
CompileMode = Literal["off", "default", "reduce-overhead", "max-autotune"]

BASE_BATCH = 32
"""Windows of the published batch: the global batch at which the learning rate is given."""


def lr_scaling_factor(lr_scaling: str, ratio: float) -> float:
    """What `lr_scaling` makes of the learning rate if the global batch is so many times as large."""
    return {"none": 1.0, "sqrt": math.sqrt(ratio), "linear": ratio}[lr_scaling]


def names_no_backbone(llm_model: str) -> bool:
    """Whether a name of `--llm_model` is that of the control without a language model."""
    return llm_model.lower() == "none"


def is_fused_by_default(prompt_prefix: str) -> bool:
    """Whether the update is one kernel where `fused_optimizer` is not set: not on the published path."""
    return prompt_prefix != "recompute"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Settings of one Time-LLM training run; the defaults are the published ones."""

    # Data
    data: Annotated[str, OneOf(tuple(DATA_SETS))] = "nyc-weather"
    """Data set; nyc-weather is embedded, the others are read from root_path/data_path."""
    root_path: str | None = None
    """Folder that holds data_path."""
    data_path: str | None = None
    """CSV file with a date column and numeric columns (default: the data set's published name)."""
    features: Features = "M"
    """M: every column; S: the target alone; MS: trained on every column, judged on the target."""
    target: str | None = None
    """Target column of S and MS (default: OT for published sets, the last column otherwise)."""
    seq_len: Annotated[int, AtLeast(1), FIXABLE] = 96
    """Length of the input window, time steps."""
    label_len: Annotated[int, AtLeast(0), FIXABLE] = 48
    """Rows of the input repeated before the target in published batches, time steps; no effect on the loss."""
    pred_len: Annotated[int, AtLeast(1), FIXABLE] = 96
    """Length of the forecast, time steps."""
    percent: Annotated[int, AtLeast(1), AtMost(100), FIXABLE] = 100
    """Share of the training split that is used, percent; the scaler still fits all of it."""

    # Model
    llm_model: str = "smollm2-135m"
    """smollm2-135m (embedded), gpt2, bert, llama (any case), a transformers folder, or none: the control without."""
    llm_path: str | None = None
    """Local transformers folder of llm_model, instead of its hub name."""
    llm_weights: Annotated[Literal["pretrained", "random"], FIXABLE] = "pretrained"
    """random: untrained weights of the true shape, for timing only; every result says so."""
    llm_dim: Annotated[int | None, AtLeast(1), FIXABLE] = None
    """Hidden size of the language model; refused if the backbone's differs (default: the backbone's)."""
    llm_layers: Annotated[int, AtLeast(1), KNOB] = 6
    """Layers of the language model that are kept, from the first."""
    d_model: Annotated[int, AtLeast(1), KNOB] = 16
    """Width of a patch embedding."""
    n_heads: Annotated[int, AtLeast(1), KNOB] = 8
    """Heads of the reprogramming attention."""
    d_ff: Annotated[int, AtLeast(1), KNOB] = 32
    """Width of a reprogramming head and of the slice of the hidden state that the forecast is read from."""
    patch_len: Annotated[int, AtLeast(1), KNOB] = 16
    """Length of a patch, time steps."""
    stride: Annotated[int, AtLeast(1), KNOB] = 8
    """Distance between the starts of neighbouring patches, time steps."""
    dropout: Annotated[float, AtLeast(0), Below(1), KNOB, SAME_TIMES] = 0.1
    """Dropout of the patch embedding and of the head; the reprogramming attention always has 0.1."""
    num_prototypes: Annotated[int, AtLeast(1), KNOB] = 1000
    """Text prototypes that the vocabulary is mapped to."""

    # Prompt
    prompt: Annotated[Prompt, KNOB] = "official"
    """Text that describes a window: official statistics, wavelet statistics of three lengths, or none."""
    prompt_digits: Annotated[Literal["full", "4", "2"], KNOB] = "full"
    """Decimals of the numbers in a prompt; fewer make shorter prompts and other numbers."""
    prompt_scope: Annotated[Literal["channel", "span"], KNOB] = "channel"
    """One prompt per window and channel, or one per time span shared by its channels."""
    prompt_padding: Annotated[Literal["masked", "published"], FIXABLE] = "masked"
    """masked: a forecast does not depend on its batch neighbours; published: padding is attended to."""
    prompt_prefix: Annotated[
        Literal["recompute", "reuse", "store"],
        Searched(needs={"reuse": ("causal",), "store": ("causal",)}, instead=("recompute",)),
        SAME_NUMBERS,
    ] = "recompute"
    """recompute: as published; reuse: exact reuse of frozen keys and values; store: also keeps the windows' own."""
    prompt_store_gib: Annotated[float, AtLeast(0), AtMost(10**6), FIXABLE, SAME_NUMBERS] = 4.0
    """Size limit of the prompt store, GiB."""
    prompt_description: Annotated[str | None, FIXABLE] = None
    """Description of the data set in the prompt (default: the data set's own)."""
    dwt_wavelet: Annotated[str, KNOB] = "db4"
    """Wavelet of the dwt prompts."""
    dwt_prompt_level: Annotated[int, AtLeast(1), KNOB] = 3
    """Decomposition level of the dwt prompts."""

    # Wavelet patch embedding
    use_swt: Annotated[bool, KNOB] = False
    """Embed patches of the stationary wavelet transform's bands."""
    swt_wavelet: Annotated[str, KNOB] = "db4"
    """Wavelet of the patch embedding."""
    swt_level: Annotated[int, AtLeast(1), KNOB] = 3
    """Levels of the stationary wavelet transform."""
    use_all_coeffs: Annotated[bool, KNOB] = False
    """Use every detail band; otherwise only the coarsest approximation and detail."""

    # Training
    batch_size: Annotated[int, AtLeast(1), KNOB] = 32
    """Micro batch per device, windows."""
    eval_batch_size: Annotated[int | None, AtLeast(1), FIXABLE, SAME_NUMBERS] = None
    """Batch of validation and test, windows (default: batch_size, on a GPU up to 512); does not change a number."""
    accumulation_steps: Annotated[int, AtLeast(1), KNOB] = 1
    """Micro batches per optimizer step; the global batch is their product."""
    optimizer: Annotated[Literal["adam", "adamw"], KNOB] = "adam"
    """Optimizer of the trained parameters."""
    fused_optimizer: Annotated[bool | None, KNOB, SAME_NUMBERS] = None
    """One kernel for the whole update (default: with reuse and store, not with recompute, as published)."""
    weight_decay: Annotated[float, AtLeast(0), AtMost(1e30), KNOB, SAME_TIMES] = 0.0
    """Weight decay of AdamW."""
    learning_rate: Annotated[float, Above(0), AtMost(1e30), KNOB, SAME_TIMES] = 1e-4
    """Learning rate at a global batch of 32."""
    lr_scaling: Annotated[Literal["none", "sqrt", "linear"], KNOB, SAME_TIMES] = "none"
    """Scaling of the learning rate with the global batch, relative to 32."""
    lradj: Annotated[Literal["type1", "COS", "TST", "constant"], KNOB, SAME_TIMES] = "type1"
    """Schedule: type1 halves every epoch, COS cosine, TST one cycle, constant."""
    pct_start: Annotated[float, Above(0), Below(1), FIXABLE, SAME_TIMES] = 0.2
    """Share of the run in which the TST schedule warms up."""
    train_epochs: Annotated[int, AtLeast(1), FIXABLE] = 10
    """Passes over the training windows."""
    patience: Annotated[int, AtLeast(1), FIXABLE] = 10
    """Validations without improvement before the run stops."""
    validate_every: Annotated[int, AtLeast(1), KNOB] = 1
    """Epochs between validations; one always follows the last epoch."""
    max_grad_norm: Annotated[float, AtLeast(0), KNOB] = 0.0
    """Gradient clipping by total norm; 0 is off."""
    tune_layer_norm: Annotated[bool, KNOB] = False
    """Train the backbone's layer norms too; needs prompt_prefix recompute."""
    backbone_dropout: Annotated[bool, KNOB] = False
    """Switch on the frozen backbone's own dropout in training, as published; needs prompt_prefix recompute."""
    seed: Annotated[int, AtLeast(0), AtMost(2**62), SAME_TIMES] = 2021
    """Seed of weights, dropout and of the order of the training windows."""

    # Speed
    device: Annotated[str, FIXABLE] = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Annotated[
        Precision,
        Searched(
            needs={"fp16": ("fp16",), "bf16": ("bf16",), "tf32": ("tf32",)},
            instead=("bf16", "fp16", "fp32"),
        ),
    ] = "fp32"
    """Compute type; trained parameters stay fp32, the frozen backbone is stored in it. fp16 scales the loss."""
    attention: Annotated[Attention, KNOB, SAME_NUMBERS] = "eager"
    """Attention kernel of the backbone."""
    compile_mode: Annotated[
        CompileMode,
        Searched(
            needs={"default": ("compiler",), "reduce-overhead": ("compiler", "cuda"), "max-autotune": ("compiler",)},
            instead=("default", "off"),
        ),
    ] = "off"
    """torch.compile mode; compilation is timed apart."""
    step_graph: Annotated[bool, FIXABLE, SAME_NUMBERS] = False
    """Replay each training step as one CUDA graph, with exact reuse on a GPU; no GPU has confirmed it yet."""
    offload_optimizer: Annotated[
        Literal["off", "none", "cpu"],
        Searched(needs={"none": ("deepspeed",), "cpu": ("deepspeed", "compiler")}, instead=("none", "off")),
        SAME_NUMBERS,
    ] = "off"
    """off: no DeepSpeed; none: ZeRO-2; cpu: ZeRO-2 with the optimizer on the CPU."""
    deepspeed_config: Annotated[str | None, FIXABLE] = None
    """The user's own DeepSpeed JSON file, instead of the generated one."""
    gradient_checkpointing: Annotated[bool, KNOB, SAME_NUMBERS] = False
    """Recompute the backbone's activations in the backward pass: less memory, more time."""
    num_workers: Annotated[int, AtLeast(0), AtMost(1024), KNOB, SAME_NUMBERS] = 0
    """Processes that load batches; 0 gathers batches from windows held on the device."""
    pin_memory: Annotated[bool, Searched(needs={"true": ("cuda",)}), SAME_NUMBERS] = True
    """Page-locked host memory for loader workers; a GPU setting."""
    prefetch_factor: Annotated[int, AtLeast(1), AtMost(1024), KNOB, SAME_NUMBERS] = 2
    """Batches that each loader worker prepares ahead."""

    # Fidelity
    train_samples: Annotated[int | None, AtLeast(1)] = None
    """Train on this many windows of the seeded permutation, the schedule stretched to them (default: all)."""
    val_samples: Annotated[int | None, AtLeast(1)] = None
    """Validate on this many windows, one fixed stratified subset (default: every window)."""
    warmup_steps: Annotated[int, AtLeast(0), AtMost(10**6), FIXABLE, SAME_NUMBERS] = 2
    """Optimizer steps of 32 windows at the start that the timing leaves out; fewer steps where they are bigger."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            InputError: With every problem found, at once.
        """
        types = [f"{name} {problem}." for name, problem in type_problems(self, SETTINGS).items()]
        problems = [*types, *_range_problems(self), *_conflicts(self)]
        if problems:
            raise InputError(problems)

    @property
    def global_batch(self) -> int:
        """Windows per optimizer step on one device."""
        return self.batch_size * self.accumulation_steps

    @property
    def evaluation_batch(self) -> int:
        """Windows of a batch of validation and test, at least: a GPU may take more where none is asked for."""
        return self.batch_size if self.eval_batch_size is None else self.eval_batch_size

    @property
    def untimed_steps(self) -> int:
        """Optimizer steps at the start that the timing leaves out; compiled code needs all of warmup_steps."""
        if self.warmup_steps == 0 or self.compile_mode != "off":
            return self.warmup_steps
        return min(self.warmup_steps, max(1, math.ceil(self.warmup_steps * BASE_BATCH / self.global_batch)))

    @property
    def is_half(self) -> bool:
        """Whether operands of products have 16 bits."""
        return self.precision in ("fp16", "bf16")

    @property
    def shares_prototypes(self) -> bool:
        """Whether a process that trains alone maps the prototypes once an update; DeepSpeed scales fp16 by itself."""
        return self.prompt_prefix != "recompute" and not (self.uses_deepspeed and self.precision == "fp16")

    @property
    def keeps_gradients(self) -> bool:
        """Whether gradients need memory of their own: CUDA graphs overwrite theirs at the next micro batch."""
        return self.step_graph or (
            self.accumulation_steps > 1 and self.compile_mode in ("reduce-overhead", "max-autotune")
        )

    @property
    def has_no_backbone(self) -> bool:
        """Whether this is the control without a language model."""
        return names_no_backbone(self.llm_model)

    @property
    def patches(self) -> int:
        """Patch tokens of a window: one more than fit, because the end is replicated."""
        return (self.seq_len - self.patch_len) // self.stride + 2

    @property
    def scaled_learning_rate(self) -> float:
        """Learning rate after lr_scaling."""
        return self.learning_rate * lr_scaling_factor(self.lr_scaling, self.global_batch / BASE_BATCH)

    @property
    def uses_fused_optimizer(self) -> bool:
        """Whether the update runs as one kernel."""
        if self.fused_optimizer is not None:
            return self.fused_optimizer
        return is_fused_by_default(self.prompt_prefix)

    @property
    def uses_deepspeed(self) -> bool:
        """Whether DeepSpeed's engine trains it."""
        return self.offload_optimizer != "off" or self.deepspeed_config is not None

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


SETTINGS: Mapping[str, Declaration] = declarations_of(RunConfig)
"""What each setting declares, by name."""

SETTING_NAMES = frozenset(SETTINGS)


def _range_problems(config: RunConfig) -> list[str]:
    problems = [f"{name} {problem}." for name, problem in limit_problems(config, SETTINGS).items()]
    if is_number(config.seq_len) and is_number(config.patch_len) and config.patch_len > config.seq_len:
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
    problems += _graph_conflicts(config) if config.step_graph else []
    if is_number(config.batch_size) and is_number(config.accumulation_steps) and config.global_batch > _MOST_AT_ONCE:
        problems.append(
            f"The global batch, batch_size times accumulation_steps, must be at most {_MOST_AT_ONCE:,} windows, got "
            f"{shortened(str(config.global_batch))}. Use a smaller --batch_size or --accumulation_steps."
        )
    if config.prompt == "none" and config.prompt_prefix == "store":
        problems.append("prompt_prefix store keeps prompts, but prompt is none. Use prompt_prefix reuse.")
    if config.has_no_backbone and config.prompt_prefix != "recompute":
        problems.append(
            f"llm_model none has no prompt to keep, so it needs prompt_prefix recompute, got {config.prompt_prefix}."
        )
    known = DATA_SETS.get(config.data)
    if known is not None and not known.is_embedded and config.root_path is None and config.data_path is None:
        problems.append(
            f"data {config.data} is read from a file: name its folder with --root_path and its file with --data_path."
        )
    return problems


def _graph_conflicts(config: RunConfig) -> list[str]:
    """What a step that is replayed as a graph cannot hold."""
    wrong = {
        f"prompt_prefix reuse or store, got {config.prompt_prefix}": config.prompt_prefix == "recompute",
        f"prompt_padding masked, got {config.prompt_padding}": config.prompt_padding != "masked",
        f"accumulation_steps 1, got {config.accumulation_steps}": config.accumulation_steps != 1,
        f"compile_mode off, got {config.compile_mode}": config.compile_mode != "off",
        "a precision without gradient scaling, got fp16": config.precision == "fp16",
        "offload_optimizer off and no deepspeed_config": config.uses_deepspeed,
        "fused_optimizer true, got false": config.fused_optimizer is False,
    }
    return [f"step_graph needs {needed}. Drop one of the two." for needed, is_wrong in wrong.items() if is_wrong]
