"""The honest control: the same patches and head with the language model left out (Tan et al., arXiv 2406.16964)."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from timellm.contract.config import RunConfig
from timellm.model.layers import FlattenHead, normalize_window, restore_scale
from timellm.model.timellm import DTYPES, PromptBatch, Prototypes, build_patch_embedding, compiled


class PatchAttention(nn.Module):
    """Patches, one attention layer over them, and a head; everything is trained.

    Args:
        config: The run's settings; the width is n_heads * d_ff, as that of the reprogramming attention.
    """

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self.config = config
        width = config.n_heads * config.d_ff
        self.patch_embedding = build_patch_embedding(config)
        self.widen = nn.Linear(config.d_model, width)
        self.joint_projection = nn.Linear(width, 3 * width)
        self.out_projection = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.output_projection = FlattenHead(width * config.patches, config.pred_len, config.dropout)

    @property
    def product_dtype(self) -> torch.dtype:
        """Type that matrix products are computed in."""
        return DTYPES[self.config.precision]

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All parameters by name."""
        return self.named_parameters()

    def parameter_counts(self) -> tuple[int, int]:
        """Trainable and total parameters, which are the same."""
        total = sum(parameter.numel() for parameter in self.parameters())
        return total, total

    def compile_forward(self) -> None:
        """Compile the forward pass."""
        self.forward = compiled(self.forward, self.config)  # type: ignore[method-assign]

    def forward(self, x: Tensor, prompt: PromptBatch, prototypes: Prototypes | None = None) -> Tensor:
        """Forecast scaled windows [windows, seq_len] as [windows, pred_len]; prompt and prototypes play no part."""
        normed, mean, inverse_std = normalize_window(x.float())
        enabled = self.config.is_half
        with torch.autocast(x.device.type, dtype=self.product_dtype if enabled else None, enabled=enabled):
            tokens = self.widen(self.patch_embedding(normed))  # [windows, patches, width]
            forecast = self.output_projection(self.norm(tokens + self._attend(tokens)))
        return restore_scale(forecast, mean, inverse_std)

    def _attend(self, tokens: Tensor) -> Tensor:
        windows, patches, _ = tokens.shape
        heads = self.joint_projection(tokens).view(windows, patches, 3, self.config.n_heads, -1)
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)  # each [windows, n_heads, patches, d_ff]
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        return self.out_projection(mixed.transpose(1, 2).flatten(2))
