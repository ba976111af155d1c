"""The golden cases, found by globbing `tests/golden` or the folder that TIMELLM_GOLDEN_DIR names."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

GOLDEN_VARIABLE = "TIMELLM_GOLDEN_DIR"
_SIZES = re.compile(r"case_b(\d+)_n(\d+)_s(\d+)_p(\d+)")


@dataclass(frozen=True)
class GoldenCase:
    """One batch that the published model was run on.

    Attributes:
        llm: Name of the backbone's folder.
        name: File name without its ending.
        folder: Folder of the backbone.
        batch: Time spans B.
        channels: Channels N; rows of `prompt_ids` are B * N, the channel fastest.
        seq_len: Length of the input, time steps.
        pred_len: Length of the forecast, time steps.
    """

    llm: str
    name: str
    folder: Path
    batch: int
    channels: int
    seq_len: int
    pred_len: int

    @property
    def id(self) -> str:
        """Name of the case in a test's id."""
        return f"{self.llm}-{self.name}"

    @property
    def arrays_path(self) -> Path:
        return self.folder / f"{self.name}.npz"

    @property
    def prompts_path(self) -> Path:
        return self.folder / f"{self.name}.prompts.json"

    @property
    def config_path(self) -> Path:
        return self.folder / "config.json"

    @property
    def weights_paths(self) -> tuple[Path, ...]:
        """Files of weights; a later one replaces parameters of the earlier."""
        own = self.folder / f"{self.name}.weights.npz"
        return (self.folder / "weights.npz", *([own] if own.is_file() else []))

    @property
    def tokenizer_folder(self) -> Path:
        return self.folder.parent / "tokenizer"

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array of the case by name."""
        return dict(np.load(self.arrays_path))

    def prompts(self) -> list[str]:
        """The B * N prompts, channel fastest."""
        return json.loads(self.prompts_path.read_text())

    def weights(self) -> dict[str, np.ndarray]:
        """Every parameter under its published state-dict name."""
        return {name: array for path in self.weights_paths for name, array in np.load(path).items()}


def golden_dir() -> Path:
    """The folder of the golden cases."""
    named = os.environ.get(GOLDEN_VARIABLE)
    return Path(named) if named else Path(__file__).parents[1] / "golden"


def golden_cases() -> list[GoldenCase]:
    """Every case, in the order of its id.

    Raises:
        FileNotFoundError: If the folder holds none, so that no test passes for want of cases.
    """
    cases = []
    for path in sorted(golden_dir().glob("*/case_*.npz")):
        sizes = _SIZES.fullmatch(path.stem)
        if sizes:
            batch, channels, seq_len, pred_len = map(int, sizes.groups())
            cases.append(GoldenCase(path.parent.name, path.stem, path.parent, batch, channels, seq_len, pred_len))
    if not cases:
        raise FileNotFoundError(f"{golden_dir()} has no <llm>/case_*.npz; unset {GOLDEN_VARIABLE} or correct it.")
    return cases
