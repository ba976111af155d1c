"""Ray without two of its processes that no search here asks anything: the autoscaler, and the reader of its logs."""

from typing import Any

from search import session

_start_ray = session.start_ray


def _start_less(**options: Any) -> session.Ray:
    from ray._private.node import Node  # not before the search has made Ray's settings

    Node.start_monitor = Node.start_log_monitor = lambda node: None
    return _start_ray(**options)


session.start_ray = _start_less
