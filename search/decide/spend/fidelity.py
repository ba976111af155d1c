"""How much of the whole training a trial does."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.contract.words import shortened

STEP = 32
"""Samples per trial are a multiple of this."""
_VALIDATION = (32, 512)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fidelity:
    """How much of the whole training a trial does."""

    kind: Literal["full", "samples"]
    """full: the whole training run; samples: a part."""
    train_samples: int | None = None
    """Windows a trial trains on; None for all of them in every epoch."""
    val_samples: int | None = None
    """Windows it is validated on; None for all."""

    @classmethod
    def of_samples(cls, samples: int) -> "Fidelity":
        """The fidelity of SAMPLES training windows, with half as many for validation, 32 to 512."""
        low, high = _VALIDATION
        return cls(kind="samples", train_samples=samples, val_samples=min(high, max(low, samples // 2)))

    def apply(self, config: RunConfig) -> RunConfig:
        """The run configuration at this fidelity."""
        return config.replace(train_samples=self.train_samples, val_samples=self.val_samples)

    def is_of(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of a trials table was measured at this fidelity."""
        if self.train_samples is None:
            return row["is_projected"] is False
        return (row["train_samples"], row["val_samples"]) == (self.train_samples, self.val_samples)

    def refusal(self, config: RunConfig, devices: int = 1) -> str | None:
        """Why a run says nothing at this fidelity; None if it does.

        A global batch above the samples would make no whole optimizer step.
        """
        global_batch = config.global_batch * devices
        if self.train_samples is None or global_batch <= self.train_samples:
            return None
        return f"A global batch of {global_batch} makes no whole step of {self.train_samples} training windows."

    def to_dict(self) -> dict[str, Any]:
        """The fidelity as JSON types, for the manifest."""
        return {"kind": self.kind, "train_samples": self.train_samples, "val_samples": self.val_samples}

    def __str__(self) -> str:
        """In words."""
        if self.kind == "full":
            return "the whole training run"
        return f"{self.train_samples} training windows, validated on {self.val_samples}"


_MOST_DIGITS = 12


def parse_fidelity(text: str) -> Literal["auto", "full"] | int:
    """The value of --fidelity.

    Raises:
        InputError: If it is neither auto, full nor a whole number above 0.
    """
    if text == "auto":
        return "auto"
    if text == "full":
        return "full"
    if text.isdecimal() and len(text) <= _MOST_DIGITS and int(text) > 0:
        return int(text)
    raise InputError(
        f"--fidelity must be full, auto or a number of training windows above 0 of at most {_MOST_DIGITS} digits, "
        f"got {shortened(text)!r}."
    )
