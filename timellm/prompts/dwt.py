"""Wavelet prompts: what the discrete wavelet transform says of a window, in three lengths."""

from dataclasses import dataclass

import numpy as np
import pywt
from torch import Tensor

from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.prompts.decimals import written
from timellm.prompts.statistics import WindowStatistics

_STABLE_DB = 20.0
_MODERATE_DB = 10.0
_LARGEST_DB = 100.0
"""Signal-to-noise ratios are cut here, so that a window without noise has one."""
_CLEAN = 1e-12
"""Variances and energies of normalised coefficients below this are rounding."""

_RANGES = {"stable": "above 20 dB", "moderate": "10 to 20 dB", "noisy": "below 10 dB"}
_MINIMAL = (
    "{description} Forecast {pred_len} steps from {seq_len}: min {minimum}, max {maximum}, median {median}, "
    "{trend} trend, {stability}, period {period} steps."
)
_STRUCTURED = (
    "<|start_prompt|>Dataset description: {description} Task description: forecast the next {pred_len} steps given "
    "the previous {seq_len} steps information; Input statistics: min value {minimum}, max value {maximum}, "
    "median value {median}, the trend of the approximation is {trend}, the signal is {stability} "
    "(signal-to-noise ratio {range}), the dominant period is {period} steps, in band {band} of the {wavelet} wavelet "
    "transform{details}<|<end_prompt>|>"
)


@dataclass(frozen=True, eq=False, slots=True)
class WaveletStatistics:
    """Wavelet statistics of n normalised windows; L is the decomposition level.

    Attributes:
        is_upward: Whether the approximation rises, by the sign of its least-squares slope [n], bool.
        snr_db: Variance of the approximation's coefficients over that of all details', dB [n].
        energy_percent: Share of each band in the energy of all coefficients, cA_L, cD_L … cD_1 [n, L + 1].
        volatility: Standard deviation of the steps from one value to the next [n].
    """

    is_upward: np.ndarray
    snr_db: np.ndarray
    energy_percent: np.ndarray
    volatility: np.ndarray

    @property
    def level(self) -> int:
        """Decomposition level L."""
        return self.energy_percent.shape[1] - 1

    @property
    def strongest_band(self) -> np.ndarray:
        """Column of `energy_percent` with most energy [n]; the slower band of equals."""
        return self.energy_percent.argmax(axis=1)


def check_wavelet_prompt(config: RunConfig) -> None:
    """Refuse a wavelet or a level that the window cannot be decomposed with.

    Raises:
        InputError: If the wavelet is unknown or not a discrete one, or the level exceeds what seq_len allows.
    """
    if not config.prompt.startswith("dwt"):
        return
    if config.dwt_wavelet not in pywt.wavelist(kind="discrete"):
        raise InputError(
            f"dwt_wavelet must be a discrete wavelet, got {config.dwt_wavelet}. Use one like haar, db4, sym4 or coif2."
        )
    highest = pywt.dwt_max_level(config.seq_len, config.dwt_wavelet)
    if config.dwt_prompt_level > highest:
        raise InputError(
            f"dwt_prompt_level must be at most {highest} for seq_len {config.seq_len} and {config.dwt_wavelet}, "
            f"got {config.dwt_prompt_level}. Use a smaller --dwt_prompt_level, a longer --seq_len or a shorter wavelet."
        )


def wavelet_statistics(normalised: Tensor, wavelet: str, level: int) -> WaveletStatistics:
    """Transform all windows in one call and describe them.

    Args:
        normalised: Normalised windows [n, seq_len].
        wavelet: Name of a discrete wavelet.
        level: Decomposition level.
    """
    values = normalised.double().numpy()
    bands = pywt.wavedec(values, wavelet, level=level, axis=-1)
    approximation, details = bands[0], np.concatenate(bands[1:], axis=-1)
    centred = np.arange(approximation.shape[1]) - (approximation.shape[1] - 1) / 2
    energies = np.stack([np.square(band).sum(axis=-1) for band in bands], axis=1)
    total = energies.sum(axis=1, keepdims=True)
    return WaveletStatistics(
        is_upward=approximation @ centred > 0,
        snr_db=_signal_to_noise(approximation.var(axis=-1), details.var(axis=-1)),
        energy_percent=100 * np.divide(energies, total, out=np.zeros_like(energies), where=total > _CLEAN),
        volatility=np.diff(values, axis=-1).std(axis=-1),
    )


def dwt_prompts(
    config: RunConfig, statistics: WindowStatistics, wavelets: WaveletStatistics, description: str
) -> list[str]:
    """Prompts of the length that `config.prompt` names: dwt-minimal, dwt-balanced or dwt-detailed.

    Minimum, maximum and median are written as `prompt_digits` says, the wavelets' own numbers with one or two
    decimals.

    Args:
        config: The run.
        statistics: Statistics of n windows.
        wavelets: Wavelet statistics of the same windows.
        description: What the prompt says of the data set.

    Returns:
        n texts.
    """
    template = _MINIMAL if config.prompt == "dwt-minimal" else _STRUCTURED
    names, periods = band_names(wavelets.level), band_periods(wavelets.level)
    strongest = wavelets.strongest_band.tolist()
    rows = zip(
        written(statistics.minimum, config.prompt_digits),
        written(statistics.maximum, config.prompt_digits),
        written(statistics.median, config.prompt_digits),
        wavelets.is_upward.tolist(),
        wavelets.snr_db.tolist(),
        strongest,
        _details(wavelets) if config.prompt == "dwt-detailed" else [""] * len(strongest),
        strict=True,
    )
    return [
        template.format(
            description=description,
            pred_len=config.pred_len,
            seq_len=config.seq_len,
            minimum=minimum,
            maximum=maximum,
            median=median,
            trend="upward" if is_upward else "downward",
            stability=stability(snr_db),
            range=_RANGES[stability(snr_db)],
            period=periods[band],
            band=names[band],
            wavelet=config.dwt_wavelet,
            details=details,
        )
        for minimum, maximum, median, is_upward, snr_db, band, details in rows
    ]


def stability(snr_db: float) -> str:
    """A signal-to-noise ratio in a word: stable above 20 dB, moderate from 10 dB, noisy below."""
    if snr_db > _STABLE_DB:
        return "stable"
    return "moderate" if snr_db >= _MODERATE_DB else "noisy"


def band_names(level: int) -> list[str]:
    """Names of the bands in pywt's order: cA_L, cD_L … cD_1."""
    return [f"cA{level}", *(f"cD{band}" for band in range(level, 0, -1))]


def band_periods(level: int) -> list[str]:
    """Periods that the bands hold, time steps: cD_j those of 2^j to 2^(j+1), cA_L the longer ones."""
    return [f"more than {2 ** (level + 1)}", *(f"{2**band}-{2 ** (band + 1)}" for band in range(level, 0, -1))]


def _details(wavelets: WaveletStatistics) -> list[str]:
    bands = list(zip(band_names(wavelets.level), band_periods(wavelets.level), strict=True))
    texts = []
    for snr_db, energies, volatility in zip(
        wavelets.snr_db.tolist(), wavelets.energy_percent.tolist(), wavelets.volatility.tolist(), strict=True
    ):
        shares = ", ".join(
            f"{name} ({period} steps) {energy:.1f} %" for (name, period), energy in zip(bands, energies, strict=True)
        )
        texts.append(
            f"; Wavelet statistics: signal-to-noise ratio {snr_db:.1f} dB, share of the energy in each band {shares}, "
            f"volatility (standard deviation of the change from step to step) {volatility:.2f}"
        )
    return texts


def _signal_to_noise(signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Ratio of two variances [n] in dB, within +-100; 100 where there is no noise."""
    has_noise = noise > _CLEAN
    ratio = np.divide(np.maximum(signal, _CLEAN), noise, out=np.ones_like(signal), where=has_noise)
    return np.where(has_noise, np.clip(10 * np.log10(ratio), -_LARGEST_DB, _LARGEST_DB), _LARGEST_DB)
