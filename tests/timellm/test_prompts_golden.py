import re

import pytest
import torch

from tests.timellm.golden_cases import GoldenCase, golden_cases
from timellm.contract.config import RunConfig
from timellm.prompts import prompt_texts
from timellm.prompts.statistics import normalise_windows

_ETT = (
    "The Electricity Transformer Temperature (ETT) is a crucial indicator in the electric power long-term deployment."
)
_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_LAGS = re.compile(r"\[([\d, ]+)\]")


def _folded_lags(text: str, seq_len: int) -> list[int]:
    match = _LAGS.search(text)
    assert match
    return sorted(min(lag, seq_len - lag) for lag in map(int, match.group(1).split(",")))


def _wording(text: str) -> str:
    return _NUMBER.sub("#", _LAGS.sub("[]", text))


@pytest.mark.parametrize("case", golden_cases(), ids=lambda case: case.id)
def test_golden_prompts_are_written_word_for_word(case: GoldenCase):
    x = torch.from_numpy(case.arrays()["x"]).permute(0, 2, 1).reshape(-1, case.seq_len)
    config = RunConfig(seq_len=case.seq_len, pred_len=case.pred_len, patch_len=1)
    texts = prompt_texts(config, normalise_windows(x), _ETT)
    expected = case.prompts()
    assert len(texts) == len(expected) == case.batch * case.channels
    for ours, theirs in zip(texts, expected, strict=True):
        assert _wording(ours) == _wording(theirs)
        numbers = [[float(number) for number in _NUMBER.findall(text)] for text in (ours, theirs)]
        assert numbers[0] == pytest.approx(numbers[1], abs=1e-5, rel=1e-5)
        assert _folded_lags(ours, case.seq_len) == _folded_lags(theirs, case.seq_len)
