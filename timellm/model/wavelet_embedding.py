"""Patches of the bands of the stationary wavelet transform, embedded per band and mixed by learnt weights."""

import numpy as np
import pywt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.model.layers import TokenEmbedding, patches_with_neighbours


class StationaryWaveletTransform(nn.Module):
    """The stationary (undecimated) wavelet transform, the algorithme à trous (Holschneider et al. 1989), as `pywt.swt`.

    Level j filters with the wavelet's decomposition filters, 2^(j-1) - 1 zeros between their taps; the window closes
    into a circle. As `pywt.swt`, it is defined for lengths that are a multiple of 2^level: other windows are
    extended by repetitions of their last value, transformed, and cut back to their own length.

    Args:
        wavelet: Name of a discrete wavelet.
        level: Levels L of the transform.
    """

    filters: Tensor

    def __init__(self, wavelet: str, level: int) -> None:
        super().__init__()
        bank = pywt.Wavelet(wavelet)
        self.level = level
        taps = np.array([bank.dec_lo[::-1], bank.dec_hi[::-1]])  # a convolution layer correlates: reverse them
        self.register_buffer("filters", torch.tensor(taps, dtype=torch.float32).unsqueeze(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform windows, in fp32 whatever the precision of the run.

        Args:
            x: Windows [windows, seq_len], float32.

        Returns:
            Bands cA_L, cD_L, cD_(L-1) … cD_1 [windows, L + 1, seq_len], in `pywt`'s scale.
        """
        seq_len = x.shape[1]
        approximation = F.pad(x.unsqueeze(1), (0, -seq_len % 2**self.level), mode="replicate")
        details = []
        with torch.autocast(x.device.type, enabled=False):
            for dilation in (2**index for index in range(self.level)):
                both = self._filter(approximation, dilation)  # [windows, 2, extended]
                approximation, detail = both.split(1, dim=1)
                details.append(detail)
        return torch.cat((approximation, *reversed(details)), dim=1)[..., :seq_len]

    def _filter(self, signal: Tensor, dilation: int) -> Tensor:
        after = self.filters.shape[-1] // 2  # where pywt centres a filter
        before = self.filters.shape[-1] - 1 - after
        circle = F.pad(signal, (before * dilation, after * dilation), mode="circular")
        return F.conv1d(circle, self.filters, dilation=dilation)


class WaveletPatchEmbedding(nn.Module):
    """Patches of every band, one token convolution per band, fused by softmax weights that start equal.

    Args:
        patch_len: Length of a patch, time steps.
        stride: Distance between the starts of neighbouring patches, time steps.
        d_model: Width of an embedding.
        dropout: Dropout of the embeddings.
        wavelet: Name of a discrete wavelet.
        level: Levels L of the transform.
        use_all_coeffs: Use every detail band; otherwise only cA_L and cD_L.
    """

    def __init__(
        self,
        patch_len: int,
        stride: int,
        d_model: int,
        dropout: float,
        *,
        wavelet: str,
        level: int,
        use_all_coeffs: bool,
    ) -> None:
        super().__init__()
        self.patch_len, self.stride = patch_len, stride
        self.bands = level + 1 if use_all_coeffs else 2
        self.transform = StationaryWaveletTransform(wavelet, level)
        self.band_embeddings = nn.ModuleList(TokenEmbedding(patch_len, d_model) for _ in range(self.bands))
        self.band_logits = nn.Parameter(torch.zeros(self.bands))
        self.dropout = nn.Dropout(dropout)

    @property
    def band_weights(self) -> Tensor:
        """Share of each band in the embedding [bands]; they sum to one."""
        return torch.softmax(self.band_logits, dim=0)

    def forward(self, x: Tensor) -> Tensor:
        """Embed normalised windows [windows, seq_len] as [windows, patches, d_model]."""
        coefficients = self.transform(x)[:, : self.bands]  # [windows, bands, seq_len]
        read = patches_with_neighbours(coefficients, self.patch_len, self.stride)
        embedded = [embed(read[:, band]) for band, embed in enumerate(self.band_embeddings)]
        mixed = torch.einsum("b,bwpd->wpd", self.band_weights, torch.stack(embedded))
        return self.dropout(mixed)


def check_wavelet_embedding(config: RunConfig) -> None:
    """Refuse a wavelet or a level that the window cannot be transformed with.

    The limit is that of the decimated transform: beyond it, every coefficient of the last level would be computed
    across the seam of the circle.

    Raises:
        InputError: If the wavelet is unknown or not a discrete one, or the level exceeds what seq_len allows.
    """
    if not config.use_swt:
        return
    if config.swt_wavelet not in pywt.wavelist(kind="discrete"):
        raise InputError(
            f"swt_wavelet must be a discrete wavelet, got {config.swt_wavelet}. "
            "Use one like haar, db4, db6, sym4 or coif2."
        )
    highest = pywt.dwt_max_level(config.seq_len, config.swt_wavelet)
    if config.swt_level > highest:
        raise InputError(
            f"swt_level must be at most {highest} for seq_len {config.seq_len} and {config.swt_wavelet}, "
            f"got {config.swt_level}. Use a smaller --swt_level, a longer --seq_len or a shorter wavelet."
        )
