"""What Ray Train sets up for the processes of a trial: they find each other themselves, so it is little."""

from typing import Any

from ray.train.backend import Backend, BackendConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

ENVIRONMENT = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
"""The end of a trial is noticed soon; a node that is taken away ends the trial like any other fault."""


class DevicesBackend(Backend):
    """The processes of one node see all their GPUs, and take the one of their local rank."""

    share_cuda_visible_devices = True


class DevicesConfig(BackendConfig):
    """Configuration of `DevicesBackend`."""

    @property
    def backend_cls(self) -> type[DevicesBackend]:
        """The backend."""
        return DevicesBackend


class DevicesTrainer(DataParallelTrainer):
    """Runs one function per device.

    Ray removes a trial's placement group when its launcher is gone. Ray Train has an actor for this too, which outlives
    the launcher and waits for ever if there is no dashboard to ask; that actor is left out.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if type(callback).__name__ != "PlacementGroupCleanerCallback"]
