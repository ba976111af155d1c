"""Whether somebody answers at the address of a Ray cluster."""

import socket

from timellm.contract.errors import InputError

_SECONDS_TO_ANSWER = 10


def check_address(address: str) -> None:
    """Make sure that somebody answers at a cluster's address: Ray itself would wait for ever.

    Raises:
        InputError: If it is not an address, or nobody answers.
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
