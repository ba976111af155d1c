"""What this machine, the data and the language model are, found by a short process of its own.

`python -m search.setup.hardware` reads a run configuration and its variants as JSON and writes what it found as JSON:
torch is imported there, so that the search itself stays light.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from spaces import Hardware, Space
from spaces.knobs import is_measured
from timellm.contract.errors import InputError, last_line
from timellm.contract.manifest import Manifest
from timellm.machine.cores import usable_cores
from timellm.machine.process import packages_path

_MOST_THREADS = 256


class FactFinder:
    """Finds the facts of a search in a process of its own, while other things are done.

    Args:
        config: The run configuration that data and language model are checked for, from `RunConfig.to_dict`.
        variants: Settings of other runs, as far as they differ, whose wavelets are checked too.
    """

    def __init__(self, config: Mapping[str, Any], variants: Sequence[Mapping[str, Any]] = ()) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "search.setup.hardware"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": packages_path()},
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"config": config, "variants": variants}))
        self._process.stdin.close()
        self._process.stdin = None

    def facts(self) -> dict[str, Any]:
        """Wait for the facts.

        Returns:
            `machine`, `versions`, `git_revision`, `features`, `gpu_memory_gib`, `data`, `backbone`, and `environments`:
            the environment of a worker by its number of threads.

        Raises:
            InputError: With everything that is wrong with the data or the language model.
        """
        output, errors = self._process.communicate()
        if self._process.returncode:
            why = last_line(errors, "no output")[:300]
            raise InputError(f"The data and the language model must be readable, but checking them failed: {why}")
        found = json.loads(output.splitlines()[-1])
        if found.get("problems"):
            raise InputError(found["problems"])
        return found


def hardware_of(facts: Mapping[str, Any]) -> Hardware:
    """What decides which values of a space can be tried, from `FactFinder.facts`."""
    return Hardware(
        cores=facts["machine"]["cores"],
        features=frozenset(facts["features"]),
        llm_layers=facts["backbone"].get("layers"),
        hidden_size=facts["backbone"].get("hidden_size"),
        slowdown=facts.get("slowdown") or {},
    )


def with_earlier_features(facts: Mapping[str, Any], manifest: Manifest) -> dict[str, Any]:
    """The facts of a resumed search: what was measured when it began decides its space again, not a new measurement.

    Args:
        facts: From `FactFinder.facts`.
        manifest: That of the search; an old one without features adds nothing.
    """
    if manifest.features is None:
        return dict(facts)
    found = {feature for feature in facts["features"] if not is_measured(feature)}
    return {**facts, "features": sorted(found | {feature for feature in manifest.features if is_measured(feature)})}


def wavelet_variants(space: Space) -> list[dict[str, Any]]:
    """Settings with each wavelet that a trial may have, at the lowest level that it may have."""
    prompts = [prompt for prompt in _possible(space, "prompt") if str(prompt).startswith("dwt")]
    switched = {"prompt": prompts, "use_swt": [True] if True in _possible(space, "use_swt") else []}
    names = {"prompt": ("dwt_wavelet", "dwt_prompt_level"), "use_swt": ("swt_wavelet", "swt_level")}
    variants = []
    for switch, (wavelet, level) in names.items():
        levels = _possible(space, level)
        lowest = {level: min(levels)} if levels else {}
        for value in _possible(space, wavelet) if switched[switch] else ():
            variants.append({switch: switched[switch][0], wavelet: value, **lowest})
    return variants


def layer_variants(space: Space) -> list[dict[str, Any]]:
    """Settings with the most layers of the language model that a trial may have."""
    most = max((int(value) for value in _possible(space, "llm_layers")), default=None)
    return [] if most is None else [{"llm_layers": most}]


def _possible(space: Space, name: str) -> tuple[Any, ...]:
    """The values of a setting that a space names, or the ends of its range."""
    if knob := space.knob(name):
        return knob.values or knob.ends or ()
    return (space.fixed[name],) if name in space.fixed else ()


def usable_features(device: str, backbone: Mapping[str, Any]) -> list[str]:
    """Features of the device that runs on this machine would use."""
    import torch

    from timellm.model.rounding import pays

    if device != "cpu" and torch.cuda.is_available():
        has_units = torch.cuda.is_bf16_supported(including_emulation=False)
        features = {"cuda", "fp16"} | ({"bf16", "tf32"} if has_units else set())
        features |= {f"fast-{name}" for name in _fast_on_gpu(torch.cuda.get_device_capability()) if name in features}
    else:
        features = {"bf16"} | ({"fast-bf16"} if pays(torch.bfloat16) else set())
    if any(shutil.which(name) for name in ("g++", "c++", "clang++")):
        features.add("compiler")
    if importlib.util.find_spec("deepspeed"):
        features.add("deepspeed")
    if backbone.get("kind") != "bert":
        features.add("causal")
    return sorted(features)


def _fast_on_gpu(capability: tuple[int, int]) -> set[str]:
    """Half precisions that a GPU of a compute capability multiplies fast: fp16 from Volta on, bf16 from Ampere."""
    return {name for name, least in {"fp16": (7, 0), "bf16": (8, 0)}.items() if capability >= least}


def _slowdown(device: str) -> dict[str, float]:
    """Time of a matrix product in bf16, relative to fp32: a CPU without matrix units is not faster, or slower."""
    import torch

    from timellm.model.rounding import slowdown

    if device != "cpu" and torch.cuda.is_available():
        return {}
    return {"bf16": round(slowdown(torch.bfloat16), 2)}


def _gflop_per_second(device: str) -> float | None:
    """Operations per second of a product in fp32 on this CPU, in 1e9, before anything was trained; None on a GPU."""
    import torch

    from timellm.model.rounding import gflop_per_second

    if device != "cpu" and torch.cuda.is_available():
        return None
    return round(gflop_per_second(), 1)


def _find(values: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    from timellm.check import check_run
    from timellm.contract.config import RunConfig
    from timellm.machine.environment import (
        describe_machine,
        git_revision,
        package_versions,
        unusable_gpu,
        worker_environment,
    )
    from timellm.optimize.extensions import CPU_ADAM, is_compiled

    config = RunConfig.from_dict(values["config"])
    checked = check_run(config, values["variants"])
    most_threads = max(_MOST_THREADS, usable_cores())
    problem = unusable_gpu() if config.device == "auto" else None
    memory = [torch.cuda.get_device_properties(i).total_memory / 2**30 for i in range(torch.cuda.device_count())]
    return {
        **checked,
        "machine": {**describe_machine(), "cores": usable_cores()},
        "versions": package_versions(),
        "git_revision": git_revision(),
        "environments": {str(threads): worker_environment(threads) for threads in range(1, most_threads + 1)},
        "slowdown": _slowdown(config.device),
        "gflop_per_second": _gflop_per_second(config.device),
        "features": usable_features(config.device, checked["backbone"]),
        "has_cpu_adam": is_compiled(CPU_ADAM),
        "unusable_gpu": problem,
        "gpu_memory_gib": round(min(memory), 2) if memory else None,
    }


def main() -> int:
    """Print what was found, or the problems of the input."""
    try:
        found = _find(json.load(sys.stdin))
    except InputError as error:
        found = {"problems": list(error.problems)}
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
