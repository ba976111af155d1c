"""The words of a prompt."""

from torch import Tensor

from timellm.contract.config import RunConfig
from timellm.prompts.decimals import Digits, written
from timellm.prompts.dwt import dwt_prompts, wavelet_statistics
from timellm.prompts.statistics import WindowStatistics, normalised_statistics

_OPENING = (
    "<|start_prompt|>Dataset description: {description}Task description: forecast the next {pred_len} steps given the "
    "previous {seq_len} steps information; Input statistics: "
)


def prompt_texts(config: RunConfig, normalised: Tensor, description: str) -> list[str]:
    """The prompts of windows, as the run asks for them.

    Args:
        config: The run; its prompt is not `none`.
        normalised: Normalised windows [n, seq_len], float32.
        description: What the prompt says of the data set.

    Returns:
        n texts.
    """
    statistics = normalised_statistics(normalised)
    if config.prompt == "official":
        return official_prompts(
            statistics,
            description=description,
            seq_len=config.seq_len,
            pred_len=config.pred_len,
            digits=config.prompt_digits,
        )
    if config.prompt == "none":
        raise ValueError("A run with prompt none has no prompt texts.")
    wavelets = wavelet_statistics(normalised, config.dwt_wavelet, config.dwt_prompt_level)
    return dwt_prompts(config, statistics, wavelets, description)


def official_prompts(
    statistics: WindowStatistics, *, description: str, seq_len: int, pred_len: int, digits: Digits = "full"
) -> list[str]:
    """The published prompt, word for word.

    Args:
        statistics: Statistics of n windows.
        description: What the prompt says of the data set; "Task description" follows it without a space.
        seq_len: Length of the input window, time steps.
        pred_len: Length of the forecast, time steps.
        digits: How numbers are written; `full` as published.

    Returns:
        n texts.
    """
    opening = _OPENING.format(description=description, pred_len=pred_len, seq_len=seq_len)
    rows = zip(
        written(statistics.minimum, digits),
        written(statistics.maximum, digits),
        written(statistics.median, digits),
        statistics.is_upward.tolist(),
        statistics.lags.tolist(),
        strict=True,
    )
    return [
        f"{opening}min value {minimum}, max value {maximum}, median value {median}, "
        f"the trend of input is {'upward' if is_upward else 'downward'}, top 5 lags are : {lags}<|<end_prompt>|>"
        for minimum, maximum, median, is_upward, lags in rows
    ]
