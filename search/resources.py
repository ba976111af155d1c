"""CPU cores, memory and devices that a trial may use."""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from spaces.errors import InputError
from timellm.config import RunConfig

MEMORY_SHARE = 0.9
"""Share of the machine's memory that a trial may fill."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialResources:
    """What every trial of a search may use."""

    cores: int
    """CPU cores of a trial on a CPU; on a GPU, the most that its loader workers may use."""
    gpus: float
    """GPUs of a trial; 0 on a CPU."""
    max_memory_gib: float | None
    """Memory limit of a trial, GiB; None for none."""
    max_concurrent: int
    """Trials at the same time."""

    def threads(self, config: RunConfig) -> int:
        """CPU threads of a trial: every core on a CPU, one and its loader workers on a GPU."""
        return min(1 + config.num_workers, self.cores) if self.gpus else self.cores

    def request(self, config: RunConfig) -> dict[str, float]:
        """The bundle that Ray reserves for a trial."""
        return {"CPU": self.threads(config), "GPU": self.gpus}


def plan_resources(
    *,
    cores: int,
    gpus: int,
    device_memory_gib: float | None,
    max_concurrent: int | None,
    gpus_per_trial: float | None,
    max_memory_gib: float | None,
) -> TrialResources:
    """Share a machine among trials: one per device unless the user insists, for neighbours disturb the clock.

    Args:
        cores: CPU cores of the machine.
        gpus: Its GPUs.
        device_memory_gib: Memory of one GPU, GiB.
        max_concurrent: Trials at the same time, as asked for.
        gpus_per_trial: GPUs of a trial, as asked for.
        max_memory_gib: Memory limit of a trial, as asked for.

    Raises:
        InputError: If more is asked for than there is.
    """
    problems = []
    per_trial = (1.0 if gpus else 0.0) if gpus_per_trial is None else gpus_per_trial
    if per_trial > gpus:
        problems.append(f"--gpus_per_trial must be at most the machine's GPUs ({gpus}), got {per_trial:g}.")
    count = max_concurrent or (max(1, int(gpus / per_trial)) if per_trial else 1)
    if not per_trial and count > cores:
        problems.append(f"--max_concurrent must be at most the machine's cores ({cores}), got {count}.")
    if per_trial and count * per_trial > gpus:
        problems.append(f"--max_concurrent {count} times {per_trial:g} GPUs needs more than the machine's {gpus}.")
    if problems:
        raise InputError(problems)
    limit = max_memory_gib
    if limit is None:
        limit = device_memory_gib if per_trial else machine_memory_gib() * MEMORY_SHARE / count
    return TrialResources(
        cores=cores // count if count <= cores else 1,
        gpus=per_trial,
        max_memory_gib=None if limit is None else round(limit, 2),
        max_concurrent=count,
    )


def share_cluster(
    resources: TrialResources, nodes: Sequence[Mapping[str, float]], max_concurrent: int | None
) -> tuple[TrialResources, list[str]]:
    """What trials may use on a Ray cluster: the same on every node, one trial per node or GPU.

    Args:
        resources: What they would use on this machine.
        nodes: Resources of each node that is alive, by Ray's names.
        max_concurrent: Trials at the same time, as asked for.

    Returns:
        The resources, and what the user should know.

    Raises:
        InputError: If no node can run a trial.
    """
    able = [node for node in nodes if node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= resources.gpus]
    if not able:
        raise InputError(
            f"The cluster must have a node with a CPU and {resources.gpus:g} GPUs, but none of its {len(nodes)} has. "
            "Use --gpus_per_trial, or another --address."
        )
    sizes = sorted({int(node["CPU"]) for node in able})
    notes = [f"The cluster has {len(able)} nodes that can run trials, with {', '.join(map(str, sizes))} CPU cores."]
    per_node = [int(node["GPU"] / resources.gpus) if resources.gpus else 1 for node in able]
    cores = max(1, sizes[0] // max(per_node))
    if len(sizes) > 1:
        notes.append(f"Every trial uses {cores} cores, so that clocks can be compared.")
    changed = dataclasses.replace(resources, cores=cores, max_concurrent=max_concurrent or sum(per_node))
    return changed, notes


def machine_cores() -> int:
    """CPU cores that this process may use: its affinity, or less where its control group grants less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, math.floor(int(quota) / int(period))))
    except (OSError, ValueError):
        pass
    return cores


def machine_memory_gib() -> float:
    """Main memory, GiB, or the limit of this process's control group where that is lower."""
    total = psutil.virtual_memory().total
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(path).read_text()))
        except (OSError, ValueError):
            continue
    return total / 2**30
