"""The one error that a user's input can cause."""

from collections.abc import Iterable


class InputError(ValueError):
    """Wrong usage or input: every command prints it on one line of stderr and exits with status 2.

    Args:
        problems: One message, or several found at once. Each says the requirement, what came, and
            what to do.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__(" ".join(" ".join(problem.split()) for problem in self.problems))
