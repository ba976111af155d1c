"""Starts Ray, or joins a cluster, with its dashboard on 127.0.0.1 and its usage reports off."""

import dataclasses
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.setup.hardware import PROJECT_ROOT
from timellm.contract.errors import InputError

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_worker_niceness": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_SYNCER": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
"""Ray's own memory monitor is off, for it would kill the process that watches a worker, and workers have a limit; its
processes have the ordinary priority, for a trial's clock must not depend on what else is nice."""

_SECONDS_TO_ANSWER = 10
_OBJECT_STORE_BYTES = 100 * 2**20


@dataclass(frozen=True, slots=True)
class Ray:
    """A running Ray."""

    dashboard_url: str | None
    """Where its dashboard answers; None without one."""
    notes: tuple[str, ...]
    """What the user should know."""


def set_environment() -> None:
    """Ray's settings, where the user has not made them; to be called before ray is imported."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    paths = [str(PROJECT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))


def start_ray(*, cores: int, gpus: int, address: str | None, dashboard: bool) -> Ray:
    """Start Ray on this machine, or join a cluster.

    Args:
        cores: CPU cores to offer.
        gpus: GPUs to offer.
        address: Address of a cluster; None starts a new one.
        dashboard: Whether to start the dashboard.

    Raises:
        InputError: If Ray cannot be started or the cluster not be reached.
    """
    import ray

    for name in ("ray", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if address is not None:
        try:
            context = ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                runtime_env={"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}},
            )
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            raise InputError(f"--address must be that of a running Ray cluster, got {address}: {error}.") from None
        return Ray(_url(context), ())
    try:
        return Ray(_url(_start(cores, gpus, dashboard)), ())
    except Exception as error:
        ray.shutdown()
        if not dashboard:
            raise InputError(f"Ray must be able to start on this machine, but did not: {error}.") from error
        why = next(iter(str(error).splitlines()), type(error).__name__)
        note = f"Ray's dashboard could not be started ({why}); the search goes on without it."
        return dataclasses.replace(start_ray(cores=cores, gpus=gpus, address=None, dashboard=False), notes=(note,))


def check_address(address: str) -> None:
    """Make sure that somebody answers at a cluster's address: Ray itself would wait for ever.

    Raises:
        InputError: If the address is none, or nobody answers.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise InputError(f"--address must be HOST:PORT of a Ray cluster's head, or auto, got {address!r}.")
    try:
        socket.create_connection((host, int(port)), timeout=_SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--address must be that of a running Ray cluster, got {address}: {error}. Start one by ray start --head."
        ) from None


def token_path() -> Path | None:
    """File of the token that Ray's dashboard asks for; None if it asks for none."""
    if os.environ.get("RAY_AUTH_MODE") != "token" or os.environ.get("RAY_AUTH_TOKEN"):
        return None
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    return path if path.is_file() else None


def _start(cores: int, gpus: int, dashboard: bool) -> Any:
    import ray

    return ray.init(
        address="local",
        num_cpus=cores,
        num_gpus=gpus,
        include_dashboard=dashboard,
        dashboard_host="127.0.0.1",
        log_to_driver=False,
        logging_level=logging.CRITICAL,
        object_store_memory=_OBJECT_STORE_BYTES,
    )


def _url(context: Any) -> str | None:
    url = getattr(context, "dashboard_url", None)
    return f"http://{url}" if url else None
