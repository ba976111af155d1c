"""CPU cores, memory and devices that a trial may use."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.machine.cores import usable_memory_gib

MEMORY_SHARE = 0.9
"""Share of the machine's memory that a trial may fill."""


_WATCHING = {"memory": 1.0}
"""Bundle of an actor that only watches a trial, one byte, because Ray does not accept an empty one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialResources:
    """What every trial of a search may use."""

    cores: int
    """CPU cores of a trial's process on a CPU; on a GPU, the most that it and its loader workers may use."""
    gpus: float
    """GPUs of a process; 0 on a CPU."""
    max_memory_gib: float | None
    """Memory limit of a process, GiB; None for none."""
    max_concurrent: int
    """Trials at the same time."""
    devices: int = 1
    """Processes of a trial, each with a device of its own."""

    def threads(self, config: RunConfig) -> int:
        """CPU threads of a process: every core on a CPU, one and its loader workers on a GPU.

        Every core, too, where a GPU's optimizer is on the CPU: it updates millions of parameters there.
        """
        is_on_cpu = not self.gpus or config.offload_optimizer == "cpu"
        return self.cores if is_on_cpu else min(1 + config.num_workers, self.cores)

    def request(self, config: RunConfig) -> dict[str, float]:
        """The bundle that Ray Tune reserves for a trial: almost nothing if Ray Train reserves one per device."""
        return dict(_WATCHING) if self.devices > 1 else self.bundle(config)

    def bundle(self, config: RunConfig) -> dict[str, float]:
        """What Ray reserves for a process."""
        return {"CPU": self.threads(config), "GPU": self.gpus}

    def __str__(self) -> str:
        """In words."""
        limit = "no memory limit" if self.max_memory_gib is None else f"memory limit {self.max_memory_gib} GiB"
        each = f"{self.cores} CPU cores, {self.gpus:g} GPUs, {limit}"
        if self.devices == 1:
            return f"Each trial: {each}; {self.max_concurrent} at a time."
        return (
            f"Each trial: {self.devices} processes that train together, each with {each}; "
            f"{self.max_concurrent} trials at a time. batch_size is that of one process."
        )


def plan_resources(
    *,
    cores: int,
    gpus: int,
    device_memory_gib: float | None,
    max_concurrent: int | None,
    gpus_per_trial: float | None,
    max_memory_gib: float | None,
    devices: int = 1,
    on_cluster: bool = False,
) -> TrialResources:
    """Share a machine among trials: one per device unless the user insists, because neighbours disturb the clock.

    Args:
        cores: CPU cores of the machine.
        gpus: Its GPUs.
        device_memory_gib: Memory of one GPU, GiB.
        max_concurrent: Trials at the same time, as asked for.
        gpus_per_trial: GPUs of a trial, as asked for.
        max_memory_gib: Memory limit of a process, as asked for.
        devices: Processes of a trial, each on a GPU, or on a share of the cores.
        on_cluster: Whether other machines have devices too, which `share_cluster` will count.

    Raises:
        InputError: If more is asked for than there is.
    """
    per_process = (1.0 if gpus else 0.0) if gpus_per_trial is None else gpus_per_trial
    count = max_concurrent or (max(1, int(gpus / per_process / devices)) if per_process else 1)
    processes = count * devices
    problems = []
    if devices > 1 and gpus_per_trial is not None:
        problems.append(
            f"--gpus_per_trial must be left out with --devices_per_trial {devices}, because each device is a GPU."
        )
    if per_process > gpus:
        problems.append(f"--gpus_per_trial must be at most the machine's GPUs ({gpus}), got {per_process:g}.")
    if not problems and not on_cluster:
        problems = _too_many(count, devices, per_process, cores, gpus)
    if problems:
        raise InputError(problems)
    limit = max_memory_gib
    if limit is None:
        limit = _share_of_gpu(device_memory_gib, per_process) if per_process else _share_of_memory(processes)
    return TrialResources(
        cores=max(1, cores // processes),
        gpus=per_process,
        max_memory_gib=None if limit is None else round(limit, 2),
        max_concurrent=count,
        devices=devices,
    )


def _share_of_gpu(memory_gib: float | None, share: float) -> float | None:
    """GiB of a GPU that a process may fill: processes that share one fill the rest."""
    return None if memory_gib is None else memory_gib * min(1.0, share)


def _share_of_memory(processes: int) -> float:
    """GiB of main memory that each of several processes may fill."""
    return usable_memory_gib() * MEMORY_SHARE / processes


def _too_many(count: int, devices: int, gpus_per_process: float, cores: int, gpus: int) -> list[str]:
    """What is wrong with so many trials at a time, of so many devices each, on this machine."""
    what, there = ("GPUs", gpus) if gpus_per_process else ("cores", cores)
    if devices > max(there, 1):
        return [f"--devices_per_trial must be at most the machine's {what} ({there}), got {devices}."]
    each = f" times --devices_per_trial {devices}" if devices > 1 else ""
    if not gpus_per_process and count > 1 and count * devices > cores:
        return [f"--max_concurrent{each} must be at most the machine's cores ({cores}), got {count * devices}."]
    if count * devices * gpus_per_process > gpus:
        return [f"--max_concurrent {count}{each} times {gpus_per_process:g} GPUs needs more than the machine's {gpus}."]
    return []


def share_cluster(
    resources: TrialResources, nodes: Sequence[Mapping[str, float]], max_concurrent: int | None
) -> tuple[TrialResources, list[str]]:
    """What trials may use on a Ray cluster: the same on every node, one process per node or GPU if there are enough.

    Args:
        resources: What they would use on this machine.
        nodes: Resources of each node that is alive, by Ray's names.
        max_concurrent: Trials at the same time, as asked for.

    Returns:
        The resources, and what the user should know.

    Raises:
        InputError: If no node can run a trial, or there are too few devices for one.
    """
    able = [node for node in nodes if node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= resources.gpus]
    if not able:
        raise InputError(
            f"The cluster must have a node with a CPU and {resources.gpus:g} GPUs, "
            f"but none of its {len(nodes)} nodes has. "
            "Use --gpus_per_trial, or another --address."
        )
    sizes = sorted({int(node["CPU"]) for node in able})
    notes = [f"The cluster has {len(able)} nodes that can run trials, with {', '.join(map(str, sizes))} CPU cores."]
    per_node = [int(node["GPU"] / resources.gpus) if resources.gpus else 1 for node in able]
    devices, slots = resources.devices, sum(per_node)
    count = max_concurrent or max(1, slots // devices)
    neighbours = max(per_node)
    if devices > 1 and not resources.gpus:
        neighbours = math.ceil(count * devices / len(able))
    there = slots if resources.gpus else sizes[0] * len(able)
    if devices > there or (devices > 1 and neighbours > sizes[0]):
        what = "GPUs" if resources.gpus else "cores"
        raise InputError(f"--devices_per_trial must be at most the cluster's {what} ({there}), got {devices}.")
    cores = max(1, sizes[0] // neighbours)
    if len(sizes) > 1:
        which = "process" if devices > 1 else "trial"
        notes.append(f"Every {which} uses {cores} cores, so that clocks can be compared.")
    changed = dataclasses.replace(resources, cores=cores, max_concurrent=count)
    return changed, notes + ([str(changed)] if devices > 1 else [])
