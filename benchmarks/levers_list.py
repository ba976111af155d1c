"""The levers of the acceleration guide and those that came to them, as changes of one run."""

import importlib.util
from dataclasses import dataclass, field
from typing import Any

from results.analysis.guide import EPOCH_WORDS, expected_of_lever, expected_of_plan
from spaces import load_space
from spaces.knobs import GUIDE_BASELINE, Value
from timellm.check import check_run
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.machine.cores import usable_cores
from timellm.machine.environment import choose_device

NOISE = "the base again"
"""Row that compares the base with itself."""

ROOM_FOR_EVERY_PROMPT = 1e6
"""Size limit of the prompt store, GiB; memory is only taken for the windows that are trained on."""


@dataclass(frozen=True, kw_only=True)
class Lever:
    """A change of a run's settings.

    Attributes:
        name: Row of the table.
        settings: What changes.
        expects: The guide's expectation, in words.
        is_apart: Whether it needs a process of its own: loader workers, DeepSpeed, compiled code, scaled gradients.
        is_timed: Whether it changes a step's time at all.
        counts_validation: Whether it is judged by the epoch with its share of the validation.
        note: What a reader should know.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    expects: str = "-"
    is_apart: bool = False
    is_timed: bool = True
    counts_validation: bool = False
    note: str = ""

    def of(self, base: RunConfig) -> RunConfig:
        """The run with this lever."""
        return base.replace(**self.settings)

    def is_heavy(self, base: RunConfig) -> bool:
        """Whether a step takes far more time than the base's, so that fewer of them say as much."""
        config = self.of(base)
        return config.global_batch > base.global_batch or config.precision != base.precision

    def obstacle(self, base: RunConfig) -> str | None:
        """Why it cannot run here; None if it can."""
        try:
            config = self.of(base)
            check_run(config)
        except InputError as error:
            return str(error)
        if config.offload_optimizer != "off" and importlib.util.find_spec("deepspeed") is None:
            return "It needs the deepspeed package, which is not installed."
        return None


def guide_base(base: RunConfig) -> RunConfig:
    """The run with the guide's loader workers, as many as there are cores."""
    return base.replace(num_workers=min(_whole(GUIDE_BASELINE["num_workers"]), usable_cores()))


def guide_rows(base: RunConfig, amp: str) -> list[Lever]:
    """The guide's own table below its baseline: AMP, AMP with a bigger batch, plan A and plan B of the speed space.

    Args:
        base: The guide's baseline.
        amp: Precision that AMP means on this device.
    """
    double = 2 * base.batch_size
    rows = [
        Lever(name="+ AMP", settings={"precision": amp}, expects=_gain("precision", amp, "fp32")),
        Lever(name=f"+ AMP + batch {double}", settings={"precision": amp, "batch_size": double}),
    ]
    space = load_space("speed")
    for plan, title in (("plan-a", "plan A"), ("plan-b", "plan B")):
        settings = {name: value for name, value in space.plans[plan].items() if value != space.baseline[name]}
        size = _whole(settings["batch_size"]) * base.batch_size // _whole(GUIDE_BASELINE["batch_size"])
        workers = min(_whole(settings["num_workers"]), usable_cores())
        settings |= {"precision": amp, "batch_size": size, "num_workers": workers}
        gain = expected_of_plan(plan)
        words = f"{EPOCH_WORDS[plan]}, {gain.words}" if gain else EPOCH_WORDS[plan]
        rows.append(Lever(name=title, settings=settings, expects=words))
    return [Lever(name=row.name, settings=row.settings, expects=row.expects, is_apart=True) for row in rows]


def levers(base: RunConfig) -> list[Lever]:
    """One row per lever; the first is the base once more, which shows the noise."""
    double, workers = 2 * base.batch_size, min(8, usable_cores())
    rows = [
        Lever(name=NOISE, note="shows the noise"),
        _knob("AMP bf16", "precision", "bf16", base),
        _knob("AMP fp16", "precision", "fp16", base, is_apart=True),
        _knob(f"batch {double}", "batch_size", double, base),
        _knob(f"batch {2 * double}", "batch_size", 2 * double, base),
        Lever(
            name=f"batch {double}, learning rate scaled (sqrt)",
            settings={"batch_size": double, "lr_scaling": "sqrt"},
            is_timed=False,
            note="no time lever: its step is that of the batch",
        ),
        _knob("accumulation 4", "accumulation_steps", 4, base),
        _knob("DeepSpeed ZeRO-2", "offload_optimizer", "none", base, is_apart=True),
        _knob("DeepSpeed ZeRO-2, CPU offload", "offload_optimizer", "cpu", base, is_apart=True),
        Lever(
            name="DeepSpeed ZeRO-2, accumulation 4",
            settings={"offload_optimizer": "none", "accumulation_steps": 4},
            is_apart=True,
        ),
        _knob(f"{workers} loader workers", "num_workers", workers, base, is_apart=True),
        _knob("torch.compile default", "compile_mode", "default", base, is_apart=True),
    ]
    if choose_device(base).type == "cuda":
        rows.append(_knob("torch.compile reduce-overhead", "compile_mode", "reduce-overhead", base, is_apart=True))
    rows.append(
        Lever(
            name="validation every 2nd epoch",
            settings={"validate_every": 2},
            is_apart=True,
            counts_validation=True,
            note="epochs with their share of the validation, on both sides",
        )
    )
    return rows + _model_levers(base)


def _model_levers(base: RunConfig) -> list[Lever]:
    fewer = max(1, base.llm_layers // 2)
    rows = [
        _knob(f"{fewer} of {base.llm_layers} layers", "llm_layers", fewer, base),
        _knob("SDPA attention", "attention", "sdpa", base),
        _knob("gradient checkpointing", "gradient_checkpointing", True, base, note="a lever for memory"),
        _knob("SWT patch embedding", "use_swt", True, base),
        _knob("DWT prompt, minimal", "prompt", "dwt-minimal", base),
        _knob("DWT prompt, balanced", "prompt", "dwt-balanced", base),
        _knob("one prompt per time span", "prompt_scope", "span", base),
    ]
    if base.prompt_prefix == "recompute":
        rows.append(_knob("exact reuse of the prompt", "prompt_prefix", "reuse", base))
    if base.prompt_prefix != "store":
        settings = {"prompt_prefix": "store", "prompt_store_gib": ROOM_FOR_EVERY_PROMPT}
        rows.append(
            Lever(name="prompt store", settings=settings, note="epochs after the first, every prompt in the store")
        )
    return rows


def _knob(name: str, knob: str, value: Any, base: RunConfig, *, is_apart: bool = False, note: str = "") -> Lever:
    expects = _gain(knob, value, getattr(base, knob))
    return Lever(name=name, settings={knob: value}, expects=expects, is_apart=is_apart, note=note)


def _whole(value: Value) -> int:
    assert isinstance(value, int)
    return value


def _gain(knob: str, value: Any, reference: Any) -> str:
    gain = expected_of_lever(knob, value, reference)
    return gain.words if gain else "-"
