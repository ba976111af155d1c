"""Places the names of points in a plot so that none covers another, even on a phone."""

import math
from collections.abc import Sequence

from results.document.plots.points import Point

WIDTH, HEIGHT = 300, 360
"""Size of the plot on a phone, pixels: names that do not meet there meet nowhere."""

LETTER, LINE, OFFSET = 6.6, 16.0, 8.0
"""Width of a letter, height of a line, and distance of a name from its point, pixels."""

PLACES = (
    *(f"{height} {side}" for height in ("bottom", "top", "middle") for side in ("left", "right")),
    "top center",
    "bottom center",
)
"""Positions of a name, as plotly calls them."""

Box = tuple[float, float, float, float]


class Labels:
    """Gives each name a place that no earlier one takes.

    Args:
        seconds: The least and the most seconds per epoch of all points, on the logarithmic x axis.
        errors: Ends of the y axis.

    Attributes:
        taken: Boxes of the names so far, pixels.
    """

    def __init__(self, seconds: Sequence[float], errors: Sequence[float]) -> None:
        self._left = math.log(seconds[0] / 1.15)
        self._width = math.log(seconds[1] * 1.15) - self._left
        self._low, self._height = errors[0], max(errors[1] - errors[0], 1e-12)
        self.taken: list[Box] = []

    def place(self, point: Point, text: str, preferred: str) -> str:
        """The place of one point's name: the preferred one, the first that is free, or where least is covered."""
        x = (math.log(point.seconds_per_epoch) - self._left) / self._width * WIDTH
        y = (point.val_mse - self._low) / self._height * HEIGHT
        boxes = {place: box_of(x, y, text, place) for place in (preferred, *PLACES)}
        chosen = min(boxes, key=lambda place: (self._covered(boxes[place]), place != preferred))
        self.taken.append(boxes[chosen])
        return chosen

    def _covered(self, box: Box) -> float:
        """Pixels that a box shares with earlier ones or has outside the plot."""
        area = (box[1] - box[0]) * (box[3] - box[2])
        inside = shared_area(box, (-OFFSET, WIDTH + OFFSET, -LINE, HEIGHT + LINE))
        return area - inside + sum(shared_area(box, other) for other in self.taken)


def box_of(x: float, y: float, text: str, place: str) -> Box:
    """Left, right, bottom and top of a name."""
    lines = text.split("<br>")
    width, height = LETTER * max(map(len, lines)), LINE * len(lines)
    vertical, side = place.split()
    left = {"left": x - OFFSET - width, "right": x + OFFSET, "center": x - width / 2}[side]
    bottom = {"bottom": y - OFFSET - height, "top": y + OFFSET, "middle": y - height / 2}[vertical]
    return left, left + width, bottom, bottom + height


def shared_area(one: Box, other: Box) -> float:
    """Area that two boxes share, square pixels."""
    width = min(one[1], other[1]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[2], other[2])
    return max(width, 0.0) * max(height, 0.0)
