"""Starts Ray, or joins a cluster, with its dashboard on 127.0.0.1 and its usage reports off."""

import contextlib
import dataclasses
import logging
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timellm.contract.errors import InputError, first_line
from timellm.contract.files import replaced
from timellm.machine.claims import claim, remove_claimed_by_dead, socket_folders
from timellm.machine.process import packages_path

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_worker_niceness": "0",
    "RAY_prestart_worker_first_driver": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_SYNCER": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
"""Ray's own memory monitor is off: it would kill the process that watches a worker, and workers have a limit. Ray's
processes have ordinary priority, because a trial's clock must not depend on the niceness of other processes. No
process is started for each core in advance, because a trial's actor gets one of its own anyway."""

_ALONE = {"RAY_AUTH_MODE": "token", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Of a Ray on this machine alone: its processes ask each other for a token, and listen on 127.0.0.1, which Ray
does where it takes no other machine in; it names the switch after the systems that have it on by default."""

_SECRET = re.compile(
    r"^AWS_|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|ACCOUNT_?KEY|TOKEN(?!IZER)|"
    r"(_|^)(PAT|PWD|AUTH|SAS|DSN)$|CONNECTION_?STRING|WEBHOOK|DATABASE_URL",
    re.I,
)
_NEEDED = {"HF_TOKEN", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "PWD"}
"""Secrets that a search needs itself, for gated language models and for Ray, and names that look like one."""

_VITAL = {"raylet": "raylet (it runs this machine's trials)", "gcs_server": "GCS (it knows what runs where)"}
"""Processes of a Ray that was started here which a search cannot do without."""

_OBJECT_STORE_BYTES = 100 * 2**20
_SOCKET_BYTES = 107
"""Longest path of a socket on Linux."""
_RAY_SOCKET = "ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"
_LOADER_SOCKET = "pymp-00000000/listener-00000000"
_SHORT = Path("/tmp")


@dataclass(frozen=True, slots=True)
class Ray:
    """A running Ray."""

    dashboard_url: str | None
    """Where its dashboard answers; None without one."""
    notes: tuple[str, ...]
    """What the user should know."""


def set_environment(address: str | None = None) -> None:
    """Ray's settings, unless the user has made them. Call this before ray is imported.

    Args:
        address: Address of a cluster, whose settings are its own; None for a Ray on this machine alone.
    """
    for name, value in {**_ENVIRONMENT, **({} if address else _ALONE)}.items():
        os.environ.setdefault(name, value)
    os.environ["PYTHONPATH"] = packages_path()


@contextlib.contextmanager
def secrets_put_away() -> Iterator[None]:
    """Without the secrets of this process's environment while it is entered.

    Tune hands some of them on to its actors, by a log that everybody may read, and no training needs any.
    """
    names = [name for name in os.environ if _SECRET.search(name) and name not in _NEEDED]
    kept = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(kept)


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
    notes = _shorten_paths()
    _make_token()
    try:
        context = _start(cores, gpus, dashboard)
        _claim()
        return Ray(_url(context), notes)
    except Exception as error:
        ray.shutdown()
        why = first_line(error, type(error).__name__)
        if not dashboard:
            raise InputError(f"Ray must be able to start on this machine, but did not: {why}.") from error
        note = f"Ray's dashboard could not be started ({why}); the search goes on without it."
        started = start_ray(cores=cores, gpus=gpus, address=None, dashboard=False)
        return dataclasses.replace(started, notes=(*notes, *started.notes, note))


def dead_process() -> str | None:
    """Which of the processes that Ray cannot do without has died, in words; None while all live, or are elsewhere."""
    node = _node()
    for kind, name in _VITAL.items():
        for started in list(node.all_processes.get(kind, ())) if node is not None else ():
            if (status := started.process.poll()) is not None:
                return f"Ray's {name} died, with status {status}"
    return None


def claim_socket_folders() -> set[Path]:
    """Claim the folders of sockets that processes of a Ray that was started here have made, and would leave behind."""
    node = _node()
    if node is None or not node.is_head():
        return set()
    found = socket_folders(one.process.pid for started in node.all_processes.values() for one in started)
    for folder in found:
        claim(folder)
    return found


def gcs_address() -> str:
    """Where other processes join the Ray of this one."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


def alive_nodes() -> list[dict[str, float]]:
    """Resources of each node that is alive, by Ray's names."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def stop_ray() -> None:
    """End Ray, and remove what it leaves in the temporary folder if it was started here."""
    import ray

    node = _node()
    session = Path(node.get_session_dir_path()) if node is not None and node.is_head() else None
    folders = claim_socket_folders()
    if node is not None and dead_process() is not None:  # otherwise what is left of it would be asked and waited for
        node.kill_all_processes(check_alive=False)
    ray.shutdown()
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    if session is not None and session.name.startswith("session_"):
        shutil.rmtree(session, ignore_errors=True)
        latest = session.with_name("session_latest")
        with contextlib.suppress(OSError):
            if latest.is_symlink() and not latest.exists():
                latest.unlink()


def _shorten_paths() -> tuple[str, ...]:
    """Move what needs sockets out of a temporary folder whose path is too long for them; what was moved, in words.

    Raises:
        InputError: If there is no shorter folder.
    """
    notes = []
    for name, inside, who in (("RAY_TMPDIR", _RAY_SOCKET, "Ray"), ("TMPDIR", _LOADER_SOCKET, "loader workers")):
        folder = os.environ.get(name) or os.environ.get("TMPDIR") or tempfile.gettempdir()
        if not os.path.isabs(folder):
            folder = os.environ[name] = os.path.abspath(folder)  # Ray's processes run in other folders
        if len(os.fsencode(folder)) + 1 + len(inside) <= _SOCKET_BYTES:
            continue
        if not os.access(_SHORT, os.W_OK | os.X_OK) or (name in os.environ and name == "RAY_TMPDIR"):
            raise InputError(
                f"The temporary folder's path must be at most {_SOCKET_BYTES - 1 - len(inside)} bytes, because {who} "
                f"makes sockets in it, got {folder}. Set {name} to a shorter one."
            )
        os.environ[name] = str(_SHORT)
        notes.append(f"Sockets of {who} are in {_SHORT}, because the path of {folder} is too long for them.")
    return tuple(notes)


def _make_token() -> None:
    """Let Ray have a token that only this user can read: Ray would leave one that everybody can."""
    if os.environ.get("RAY_AUTH_MODE") != "token" or {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        return
    token = secrets.token_hex(32)
    try:
        path = Path.home() / ".ray" / "auth_token"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or not path.read_text().strip():
            with replaced(path) as draft, os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                file.write(token)
        path.chmod(0o600)
    except (OSError, RuntimeError):
        os.environ["RAY_AUTH_TOKEN"] = token  # no home folder: the token lasts as long as the search


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
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
        logging_level=logging.CRITICAL,
        object_store_memory=_OBJECT_STORE_BYTES,
    )


def _node() -> Any:
    """The node that Ray runs in this process; None before its start and after its end."""
    import ray

    return getattr(ray._private.worker, "_global_node", None)


def _claim() -> None:
    """Mark what Ray made for this search as its own, and remove the temporary folders of searches that were killed."""
    node = _node()
    if node is not None and node.is_head():
        session = Path(node.get_session_dir_path())
        claim(session)
        claim_socket_folders()
        remove_claimed_by_dead(session.parent, "session_*")
        remove_claimed_by_dead(Path(os.environ.get("TMPDIR") or tempfile.gettempdir()), "pymp-*")


def _url(context: Any) -> str | None:
    url = getattr(context, "dashboard_url", None)
    return f"http://{url}" if url else None
