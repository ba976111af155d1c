"""Standard output and error whose reader may go away: the work goes on without one."""

import contextlib
import os
import sys
from collections.abc import Callable
from typing import IO, Any, cast

from timellm.contract.errors import print_any_text


class Output:
    """A stream whose reader may go away, as that of `search/run.py | head`.

    Args:
        stream: Where to write; None or a closed one where standard output was closed before the start.
    """

    encoding = "utf-8"

    def __init__(self, stream: IO[str] | None) -> None:
        self._stream = None if stream is None or stream.closed else stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    @property
    def closed(self) -> bool:
        """Whether there is no reader."""
        return self._stream is None

    def write(self, text: str) -> int:
        """Write where somebody reads."""
        self._try(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush where somebody reads."""
        self._try(lambda stream: stream.flush())

    def isatty(self) -> bool:
        """Whether a terminal shows it."""
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """Descriptor of the stream."""
        if self._stream is None:
            raise OSError("closed")
        return self._stream.fileno()

    def __getattr__(self, name: str) -> Any:
        """Whatever else a stream has."""
        if name == "_stream" or self._stream is None:
            raise AttributeError(name)
        return getattr(self._stream, name)

    def _try(self, act: Callable[[IO[str]], object]) -> None:
        if self._stream is None:
            return
        try:
            act(self._stream)
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):  # otherwise the interpreter fails on it when it ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            self._stream = None


def outlive_readers() -> None:
    """Let this process go on when nobody reads what it prints any more, and print any text."""
    print_any_text()
    sys.stdout, sys.stderr = cast(Any, Output(sys.stdout)), cast(Any, Output(sys.stderr))
