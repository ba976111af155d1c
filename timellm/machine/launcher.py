"""What a launcher says through the environment: taken over where a flag could say it, named, never acting unseen."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from timellm.contract.errors import InputError

_ACCELERATE = ("ACCELERATE_", "FSDP_", "MEGATRON_LM_", "PARALLELISM_CONFIG_")
_PRECISIONS = {"no": "fp32", "fp16": "fp16", "bf16": "bf16"}
_COMPILE_MODES = ("default", "reduce-overhead", "max-autotune")
_FRAMEWORKS = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
               "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config"}  # fmt: skip
_MPI_SIZES = {
    "OMPI_COMM_WORLD_SIZE": "mpirun", "PMI_SIZE": "mpirun", "MV2_COMM_WORLD_SIZE": "mpirun",
    "SLURM_STEP_NUM_TASKS": "srun",
}  # fmt: skip
_RANKS = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def check_launcher(environment: Mapping[str, str]) -> None:
    """Refuse an environment in which processes would not find each other, or each would train alone.

    Raises:
        InputError: With every problem at once.
    """
    problems, numbers = [], {}
    for name in ("WORLD_SIZE", *_RANKS):
        text = environment.get(name)
        if text is None:
            continue
        least = 1 if name.endswith("SIZE") else 0
        if text.strip().isdecimal() and int(text) >= least:
            numbers[name] = int(text)
        else:
            problems.append(
                f"The variable {name} must be a whole number from {least}, got {text!r}. Unset it, or start with "
                "accelerate launch or torchrun."
            )
    world = numbers.get("WORLD_SIZE", 1)
    if not problems and world > 1:
        missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]
        if missing:
            problems.append(
                f"WORLD_SIZE is {world} and {', '.join(missing)} must be set too. Unset it, or start with accelerate "
                "launch or torchrun."
            )
        elif numbers["RANK"] >= world:
            problems.append(f"RANK must be below WORLD_SIZE {world}, got {numbers['RANK']}. Start with torchrun.")
    if "WORLD_SIZE" not in environment:
        for name, starter in _MPI_SIZES.items():
            count = environment.get(name, "")
            if count.isdecimal() and int(count) > 1:
                problems.append(
                    f"{starter} started {count} processes ({name}), and each would train alone. Start with "
                    f"accelerate launch or torchrun --nproc_per_node {count}."
                )
                break
    if problems:
        raise InputError(problems)


def taken_over(given: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Settings that a launcher asks for and no flag says otherwise.

    Args:
        given: Settings that flags say.
        environment: The process's environment.

    Returns:
        More settings, and notes that name what was taken over, overridden or has no effect.

    Raises:
        InputError: For what no run can do: fp8, ZeRO stage 3.
    """
    asked = _asked(environment)
    values, notes = {}, []
    for name, (value, source) in asked.items():
        if name not in given:
            values[name] = value
            notes.append(f"{source} is taken as --{name} {value}.")
        elif given[name] != value:
            notes.append(f"{source} is overridden by --{name} {given[name]}.")
    return values, [*notes, *_without_effect(environment)]


@contextlib.contextmanager
def without_launcher_settings() -> Iterator[None]:
    """Hide from Accelerate what a launcher has set for it: a run's settings decide, ranks and addresses stay."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_ACCELERATE)}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _asked(environment: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    """Settings that a launcher asks for, each with the name of what asked."""
    asked: dict[str, tuple[Any, str]] = {}
    precision = environment.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if precision not in _PRECISIONS:
        raise InputError(f"accelerate launch --mixed_precision must be no, fp16 or bf16, got {precision!r}. Use bf16.")
    if precision != "no":
        asked["precision"] = _PRECISIONS[precision], f"accelerate launch --mixed_precision {precision}"
    steps = environment.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if steps not in ("1", "", "auto"):
        if not steps.isdecimal() or int(steps) < 1:
            raise InputError(
                f"ACCELERATE_GRADIENT_ACCUMULATION_STEPS must be a whole number above 0, got {steps!r}. Unset it."
            )
        asked["accumulation_steps"] = int(steps), f"ACCELERATE_GRADIENT_ACCUMULATION_STEPS={steps}"
    if environment.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() == "inductor":
        mode = environment.get("ACCELERATE_DYNAMO_MODE", "default")
        mode = mode if mode in _COMPILE_MODES else "default"
        asked["compile_mode"] = mode, f"accelerate launch --dynamo_backend inductor, mode {mode},"
    if _is_on(environment, "ACCELERATE_USE_CPU"):
        asked["device"] = "cpu", "accelerate launch --cpu"
    if _is_on(environment, "ACCELERATE_USE_DEEPSPEED"):
        asked |= _asked_of_deepspeed(environment)
    return asked


def _asked_of_deepspeed(environment: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    file = environment.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    if file.lower() not in ("none", ""):
        return {"deepspeed_config": (file, "accelerate launch --deepspeed_config_file")}
    stage = environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    if stage == "3":
        raise InputError("accelerate launch --zero_stage must be 2, got 3, which splits the frozen model too. Use 2.")
    device = environment.get("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "none").lower()
    if device not in ("none", "cpu"):
        raise InputError(f"accelerate launch --offload_optimizer_device must be cpu or none, got {device}. Use cpu.")
    return {"offload_optimizer": (device, f"accelerate launch --use_deepspeed, optimizer device {device},")}


def _without_effect(environment: Mapping[str, str]) -> list[str]:
    notes = [
        f"accelerate launch asks for {what}, which has no effect here."
        for name, what in _FRAMEWORKS.items()
        if _is_on(environment, name)
    ]
    backend = environment.get("ACCELERATE_DYNAMO_BACKEND", "no").lower()
    if backend not in ("no", "inductor", ""):
        notes.append(f"accelerate launch --dynamo_backend {backend} has no effect here; see --compile_mode.")
    return notes


def _is_on(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "").lower() in ("1", "true", "yes", "on", "t", "y")
