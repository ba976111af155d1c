"""What a launcher says through the environment: taken over where a flag could say it, named, never acting unseen."""

import contextlib
import math
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
_GROUP = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")
"""What a process must know to find the others."""
_OF_A_GROUP = (*_GROUP, "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "GROUP_WORLD_SIZE")
"""What tells libraries that a launcher started the process."""


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
    missing = [name for name in _GROUP if not environment.get(name)]
    if not problems and world > 1 and missing:
        problems.append(
            f"WORLD_SIZE is {world} and {', '.join(missing)} must be set too. Unset it, or start with accelerate "
            "launch or torchrun."
        )
    elif not problems and world > 1 and not _is_port(environment["MASTER_PORT"]):
        port = environment["MASTER_PORT"]
        problems.append(f"MASTER_PORT must be from 1 to 65535, got {port!r}. Start with torchrun.")
    elif not problems and numbers.get("RANK", 0) >= world:
        problems.append(f"RANK must be below WORLD_SIZE {world}, got {numbers['RANK']}. Unset it, or use torchrun.")
    if "WORLD_SIZE" not in environment and (started := _started_by_mpi(environment)):
        count, starter, name = started
        problems.append(
            f"{starter} started {count} processes ({name}), and each would train alone. Start with "
            f"accelerate launch or torchrun --nproc_per_node {count}."
        )
    if problems:
        raise InputError(problems)


def check_alone(environment: Mapping[str, str], what: str, advice: str) -> None:
    """Refuse a launcher's several processes where one process does the work.

    Args:
        environment: The process's environment.
        what: What the work is, as the start of a sentence.
        advice: How to start it.

    Raises:
        InputError: If there are several processes.
    """
    text = environment.get("WORLD_SIZE", "").strip()
    count = int(text) if text.isdecimal() else 1
    if count == 1 and (started := _started_by_mpi(environment)):
        count = started[0]
    if count > 1:
        raise InputError(f"{what} is one process, got a launcher's {count}. {advice}")


def is_launched(environment: Mapping[str, str]) -> bool:
    """Whether a launcher's variables are complete; with some of them alone, nothing can be joined."""
    return all(environment.get(name) for name in _GROUP)


def forget_group() -> None:
    """Take a launcher's variables from this process's environment: what it starts is no part of the group."""
    for name in [name for name in os.environ if name in _OF_A_GROUP or name.startswith("TORCHELASTIC_")]:
        del os.environ[name]


def _is_port(text: str) -> bool:
    return text.isdecimal() and 1 <= int(text) <= 65535


def _started_by_mpi(environment: Mapping[str, str]) -> tuple[int, str, str] | None:
    """How many processes MPI or Slurm has started, what by, and the variable that says so; None for one."""
    for name, starter in _MPI_SIZES.items():
        count = environment.get(name, "")
        if count.isdecimal() and int(count) > 1:
            return int(count), starter, name
    return None


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


def unheeded(environment: Mapping[str, str]) -> list[str]:
    """Notes on what a launcher asks for where trials have settings of their own.

    Raises:
        InputError: As `taken_over`.
    """
    notes = [
        f"{source} has no effect on a search. Use --set {name}={value}."
        for name, (value, source) in _asked(environment).items()
    ]
    return [*notes, *_without_effect(environment)]


@contextlib.contextmanager
def without_launcher_settings() -> Iterator[None]:
    """Hide from Accelerate what a launcher has set for it: a run's settings decide, ranks and addresses stay.

    Ranks without addresses, as `--local_rank 0` alone leaves them, are hidden too: there is nobody to join.
    """
    ranks = () if is_launched(os.environ) else _OF_A_GROUP
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_ACCELERATE) or name in ranks}
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
        asked |= _asked_of_deepspeed(environment) | _asked_clipping(environment)
    return asked


def _asked_clipping(environment: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    """The norm that gradients are clipped to."""
    text = environment.get("ACCELERATE_GRADIENT_CLIPPING", "none").strip().lower()
    if text in ("none", "auto", ""):
        return {}
    try:
        norm = float(text)
    except ValueError:
        norm = -1.0
    if not 0 <= norm < math.inf:
        raise InputError(f"accelerate launch --gradient_clipping must be a number from 0, got {text!r}. Use 1.0.")
    return {"max_grad_norm": (norm, f"accelerate launch --gradient_clipping {text}")} if norm else {}


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
    if environment.get("ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE", "none").lower() not in ("none", ""):
        notes.append("accelerate launch --offload_param_device is of ZeRO stage 3 and has no effect here.")
    backend = environment.get("ACCELERATE_DYNAMO_BACKEND", "no").lower()
    if backend not in ("no", "inductor", ""):
        notes.append(f"accelerate launch --dynamo_backend {backend} has no effect here; see --compile_mode.")
    return notes


def _is_on(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "").lower() in ("1", "true", "yes", "on", "t", "y")
