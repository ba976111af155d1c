"""What every command line of the project is read with."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from timellm.contract.errors import InputError


class StrictParser(argparse.ArgumentParser):
    """The parser of every command: wrong usage is an `InputError`, one line without the usage text.

    It refuses `--flag=--` as it refuses any other wrong value: argparse takes it for no value at all.

    Args:
        unsupported: Says in a sentence what is wrong with a command line as a whole, before each of its flags is
            refused; None where nothing is.
        options: Those of `argparse.ArgumentParser`.
    """

    def __init__(self, *, unsupported: Callable[[Sequence[str]], str | None] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._unsupported = unsupported

    def error(self, message: str) -> NoReturn:
        """Refuse wrong usage.

        Raises:
            InputError: Always.
        """
        raise InputError(f"{message[:1].upper()}{message[1:].rstrip('.')}. See {self.prog} --help.")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, after a look at the whole.

        Raises:
            InputError: For wrong usage.
        """
        words = sys.argv[1:] if args is None else list(args)
        if self._unsupported is not None and (reason := self._unsupported(words)) is not None:
            raise InputError(reason)
        return super().parse_known_args(args, namespace)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.option_strings and "--" in arg_strings:
            self.error(f"argument {'/'.join(action.option_strings)}: must have a value, got '--'")
        return super()._get_values(action, arg_strings)  # type: ignore[misc]
