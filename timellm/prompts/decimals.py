"""Numbers as a prompt writes them."""

from typing import Literal

import numpy as np

Digits = Literal["full", "4", "2"]


def written(values: np.ndarray, digits: Digits) -> list[str]:
    """Write numbers out.

    Args:
        values: Numbers [n], float32 or float64.
        digits: `full` writes every digit of the number as float64, as published; otherwise a number of decimals.
    """
    numbers = values.astype(np.float64).tolist()
    if digits == "full":
        return [repr(number) for number in numbers]
    decimals = int(digits)
    # Adding zero turns the -0.0 that a small negative number is rounded to into 0.0.
    return [f"{round(number, decimals) + 0.0:.{decimals}f}" for number in numbers]
