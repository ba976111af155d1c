import numpy as np
import pytest
import pywt
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.timellm.etth1 import ett_folder
from tests.timellm.gpt2_tokenizer import gpt2_tokenizer
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.data import load_data, stratified_subset
from timellm.prompts import check_wavelet_prompt, prompt_texts
from timellm.prompts.dwt import band_names, band_periods, stability, wavelet_statistics
from timellm.prompts.statistics import normalise_windows

_STEPS = torch.arange(96, dtype=torch.float32)
_ETT = (
    "The Electricity Transformer Temperature (ETT) is a crucial indicator in the electric power long-term deployment."
)
_TOKENS = {"dwt-minimal": 80, "dwt-balanced": 150, "dwt-detailed": 250}


def _text(x: torch.Tensor, prompt: str = "dwt-balanced", **settings: str) -> str:
    return prompt_texts(RunConfig(prompt=prompt, **settings), normalise_windows(x[None]), "Waves.")[0]


@given(st.sampled_from(["haar", "db4", "db6", "sym4", "coif2"]), st.integers(1, 3), st.integers(0, 1000))
def test_all_windows_at_once_equal_each_alone(wavelet: str, level: int, seed: int):
    x = torch.randn(4, 96, generator=torch.Generator().manual_seed(seed))
    together = wavelet_statistics(x, wavelet, level)
    for index, row in enumerate(x.double().numpy()):
        bands = pywt.wavedec(row, wavelet, level=level)
        details = np.concatenate(bands[1:])
        energies = np.array([np.sum(band**2) for band in bands])
        assert together.snr_db[index] == pytest.approx(10 * np.log10(bands[0].var() / details.var()))
        assert together.energy_percent[index] == pytest.approx(100 * energies / energies.sum())
        assert together.strongest_band[index] == energies.argmax()
        slope = np.polyfit(np.arange(len(bands[0])), bands[0], 1)[0]
        assert together.is_upward[index] == (slope > 0)


@pytest.mark.parametrize(
    ("period", "expected"),
    [(3, "2-4 steps, in band cD1"), (6, "4-8 steps, in band cD2"), (12, "8-16 steps, in band cD3")],
)
def test_period_of_a_wave_is_found_in_its_band(period: int, expected: str):
    assert f"the dominant period is {expected}" in _text(torch.sin(2 * torch.pi * _STEPS / period))


def test_slow_wave_is_in_the_approximation():
    assert "more than 16 steps, in band cA3" in _text(torch.sin(2 * torch.pi * _STEPS / 48))


@pytest.mark.parametrize(("slope", "expected"), [(1, "upward"), (-1, "downward")])
def test_trend_is_that_of_a_line_under_noise(slope: int, expected: str):
    noise = torch.randn(96, generator=torch.Generator().manual_seed(3))
    text = _text(slope * _STEPS / 10 + noise)
    assert f"the trend of the approximation is {expected}" in text


@pytest.mark.parametrize(
    ("snr_db", "expected"),
    [(20.1, "stable"), (20.0, "moderate"), (10.0, "moderate"), (9.9, "noisy"), (-5.0, "noisy")],
)
def test_signal_to_noise_ratio_in_a_word(snr_db: float, expected: str):
    assert stability(snr_db) == expected


def test_white_noise_is_noisy_and_a_smooth_wave_stable():
    noise = torch.randn(96, generator=torch.Generator().manual_seed(3))
    assert "the signal is noisy" in _text(noise)
    assert "the signal is stable" in _text(torch.sin(2 * torch.pi * _STEPS / 96))


def test_constant_window_has_finite_statistics():
    statistics = wavelet_statistics(normalise_windows(torch.full((1, 96), 0.1)), "db4", 3)
    assert np.isfinite(statistics.snr_db).all()
    assert np.isfinite(statistics.energy_percent).all()


def test_bands_and_their_periods_follow_the_level():
    assert band_names(2) == ["cA2", "cD2", "cD1"]
    assert band_periods(2) == ["more than 8", "4-8", "2-4"]


def test_detailed_prompt_gives_numbers_for_every_band():
    text = _text(torch.sin(2 * torch.pi * _STEPS / 12), "dwt-detailed")
    for part in (
        "signal-to-noise ratio",
        "cA3 (more than 16 steps)",
        "cD3 (8-16 steps)",
        "cD1 (2-4 steps)",
        "volatility",
    ):
        assert part in text


def test_minimum_maximum_and_median_are_kept_in_every_length():
    x = torch.sin(_STEPS / 5)
    row = normalise_windows(x[None])
    for prompt in _TOKENS:
        for value in (row.amin(), row.amax(), row.median()):
            assert f"{value.item():.4f}" in _text(x, prompt, prompt_digits="4")


@pytest.mark.parametrize("prompt", _TOKENS)
def test_prompts_have_the_promised_length_in_gpt2_tokens(prompt: str):
    tokenizer = gpt2_tokenizer()
    config = RunConfig(prompt=prompt, data="ETTh1", root_path=str(ett_folder()))
    data = load_data(config)
    x, _ = data.train.gather(stratified_subset(data.train, 300))
    lengths = [len(ids) for ids in tokenizer(prompt_texts(config, normalise_windows(x), _ETT))["input_ids"]]
    assert 0.85 * _TOKENS[prompt] <= min(lengths)
    assert max(lengths) <= 1.15 * _TOKENS[prompt]


@pytest.mark.parametrize(
    ("name", "problem"),
    [("db99", "be a discrete wavelet"), ("morl", "be a discrete wavelet"), ("", "not be empty")],
)
def test_unknown_wavelet_is_refused(name: str, problem: str):
    with pytest.raises(InputError, match=f"dwt_wavelet must {problem}"):
        check_wavelet_prompt(RunConfig(prompt="dwt-minimal", dwt_wavelet=name))


def test_level_beyond_the_window_is_refused():
    with pytest.raises(InputError, match="dwt_prompt_level must be at most 1 for seq_len 24 and db4, got 3"):
        check_wavelet_prompt(RunConfig(prompt="dwt-minimal", seq_len=24))


def test_wavelet_is_not_judged_where_it_is_not_used():
    check_wavelet_prompt(RunConfig(prompt="official", dwt_wavelet="db99", seq_len=24))
