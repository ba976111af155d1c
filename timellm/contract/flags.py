"""What every command line of the project is read with."""

import argparse
from typing import Any


class StrictParser(argparse.ArgumentParser):
    """A parser that refuses `--flag=--` as it refuses any other wrong value: argparse takes it for no value at all."""

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.option_strings and "--" in arg_strings:
            self.error(f"argument {'/'.join(action.option_strings)}: must have a value, got '--'")
        return super()._get_values(action, arg_strings)  # type: ignore[misc]
