"""The trained parts of Time-LLM around the frozen language model (Jin et al., arXiv 2310.01728, section 3)."""

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from timellm.model import devices

REPROGRAMMING_DROPOUT = 0.1
"""Published Time-LLM fixes the dropout of this attention, whatever the run's dropout is."""


def normalize_window(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Instance norm without learnt parameters (RevIN, Kim et al. 2022).

    Args:
        x: Scaled windows [windows, seq_len].

    Returns:
        The normalised windows [windows, seq_len], and mean and one over the standard deviation [windows, 1].
    """
    return torch.native_layer_norm(x, x.shape[1:], None, None, 1e-5)


def restore_scale(forecast: Tensor, mean: Tensor, inverse_std: Tensor) -> Tensor:
    """Undo `normalize_window` for forecasts [windows, pred_len] of any type; float32."""
    if torch.compiler.is_compiling():
        return torch.addcdiv(mean, forecast, inverse_std)
    return _RestoreScale.apply(forecast, mean, inverse_std)


class _RestoreScale(torch.autograd.Function):
    """One operation each way; torch's own way back takes four."""

    @staticmethod
    def forward(ctx: Any, forecast: Tensor, mean: Tensor, inverse_std: Tensor) -> Tensor:
        ctx.save_for_backward(inverse_std)
        ctx.dtype = forecast.dtype
        return torch.addcdiv(mean, forecast, inverse_std)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (inverse_std,) = ctx.saved_tensors
        return torch.div(grads[0], inverse_std, out=torch.empty_like(grads[0], dtype=ctx.dtype)), None, None


class TokenEmbedding(nn.Module):
    """A kernel-3 convolution over the patches, which close into a circle."""

    def __init__(self, patch_len: int, d_model: int) -> None:
        super().__init__()
        self.tokenConv = nn.Conv1d(patch_len, d_model, 3, padding=1, padding_mode="circular", bias=False)
        nn.init.kaiming_normal_(self.tokenConv.weight, mode="fan_in", nonlinearity="leaky_relu")

    def forward(self, neighbours: Tensor, weight: Tensor | None = None) -> Tensor:
        """Embed patches with the ones before and after them [..., patch_len * 3] as [..., d_model].

        A copy of the weight in another type may take its place.
        """
        return F.linear(neighbours, (self.tokenConv.weight if weight is None else weight).flatten(1))


def patches_with_neighbours(x: Tensor, patch_len: int, stride: int) -> Tensor:
    """What a convolution over the patches of windows reads for each of them.

    Patches overlap, the window's end is repeated for one more of them, and they close into a circle.

    Args:
        x: Windows [..., seq_len].
        patch_len: Length of a patch, time steps.
        stride: Distance between the starts of neighbouring patches, time steps.

    Returns:
        For each patch its time steps, each between those of the patch before and of the patch after
        [..., patches, patch_len * 3].
    """
    make = _new_places if torch.compiler.is_compiling() else _kept_places
    places = make(x.shape[-1], patch_len, stride, x.device)
    return x.index_select(-1, places).view(*x.shape[:-1], -1, 3 * patch_len)


def _new_places(seq_len: int, patch_len: int, stride: int, device: torch.device) -> Tensor:
    """Time steps that are read, as one list [patches * patch_len * 3]."""
    patches = (seq_len + stride - patch_len) // stride + 1
    own = torch.arange(patches).unsqueeze(1) * stride + torch.arange(patch_len)  # [patches, patch_len]
    around = torch.stack((own.roll(1, 0), own, own.roll(-1, 0)), dim=2)
    return around.clamp(max=seq_len - 1).flatten().to(device)


_kept_places = functools.lru_cache(maxsize=16)(_new_places)


class PatchEmbedding(nn.Module):
    """Overlapping patches of a window whose end is repeated for one more patch, embedded as tokens."""

    def __init__(self, patch_len: int, stride: int, d_model: int, dropout: float) -> None:
        super().__init__()
        self.patch_len, self.stride = patch_len, stride
        self.value_embedding = TokenEmbedding(patch_len, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Embed normalised windows [windows, seq_len] as [windows, patches, d_model]; with a copy of the weight."""
        return self.dropout(self.value_embedding(patches_with_neighbours(x, self.patch_len, self.stride), weight))


class LeanDropout(nn.Dropout):
    """Dropout that draws 16 random bits for an element on a CPU, where torch draws a double for each.

    The share that is dropped is p to the nearest 65,536th, and what is kept is scaled by that share.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of x, of any shape, in training."""
        dropped = round(self.p * 2**16)
        is_usual = x.device.type != "cpu" or dropped in (0, 2**16) or torch.compiler.is_compiling()
        if not self.training or is_usual:
            return super().forward(x)
        bits = torch.empty(math.ceil(x.numel() / 4), dtype=torch.int64).random_(-(2**63), None)
        kept = bits.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - 2**15
        return x * kept.to(x.dtype).mul_(2**16 / (2**16 - dropped))


def fused_attention(queries: Tensor, keys: Tensor, values: Tensor, dropout: float) -> Tensor:
    """Attention of heads [n_heads, rows, d_ff] as one kernel, of the weights' dropout too; scaled as usual."""
    one = queries.unsqueeze(0)
    return F.scaled_dot_product_attention(one, keys.unsqueeze(0), values.unsqueeze(0), dropout_p=dropout).squeeze(0)


class _LeftOut(torch.autograd.Function):
    """Zeros in the place of a parameter that would change nothing; its gradient is as if it were there."""

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, zeros: Tensor) -> Tensor:
        return zeros.detach()  # no kernel

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class ReprogrammingLayer(nn.Module):
    """Cross-attention from patches to text prototypes; keys have d_ff dimensions per head.

    Args:
        d_model: Width of a patch embedding.
        n_heads: Heads.
        d_ff: Dimensions of a head.
        d_llm: Hidden size of the language model.
        is_half: Whether operands of products have 16 bits.
    """

    no_bias: Tensor

    def __init__(self, d_model: int, n_heads: int, d_ff: int, d_llm: int, *, is_half: bool = False) -> None:
        super().__init__()
        self.n_heads, self.d_ff, self.is_half = n_heads, d_ff, is_half
        self.query_projection = nn.Linear(d_model, d_ff * n_heads)
        self.key_projection = nn.Linear(d_llm, d_ff * n_heads)
        self.value_projection = nn.Linear(d_llm, d_ff * n_heads)
        self.out_projection = nn.Linear(d_ff * n_heads, d_llm)
        self.dropout = LeanDropout(REPROGRAMMING_DROPOUT)
        self.register_buffer("no_bias", torch.zeros(d_ff * n_heads), persistent=False)

    @property
    def joint_projection(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Weights, and biases, of keys and values."""
        keys, values = self.key_projection, self.value_projection
        return (keys.weight, values.weight), (self._bias_of_keys(), values.bias)

    def _bias_of_keys(self) -> Tensor:
        """The bias of the keys; zeros, with its gradient, where one kernel attends in half precision.

        The bias adds the same number to all scores of a query, and the softmax takes it off again. The kernel's
        backward pass takes it off with numbers that were rounded, so that a part of the bias stays in the gradient of
        the query: with it, that gradient's error is twice that of attention in parts.
        """
        bias = self.key_projection.bias
        if not self.is_half or not devices.launches_kernels(bias.device):
            return bias
        return bias - bias.detach() if torch.compiler.is_compiling() else _LeftOut.apply(bias, self.no_bias)

    def keys_values(self, prototypes: Tensor, joint: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Project prototypes [prototypes, d_llm] to keys and values, each [prototypes, n_heads, d_ff].

        With a joint copy of weights and biases, one product makes both.
        """
        if joint is None:
            keys = F.linear(prototypes, self.key_projection.weight, self._bias_of_keys())
            values = self.value_projection(prototypes)
        else:
            keys, values = F.linear(prototypes, *joint).view(len(prototypes), 2, -1).unbind(1)
        shape = (len(prototypes), self.n_heads, self.d_ff)
        return keys.view(shape), values.view(shape)

    def forward(
        self, patches: Tensor, keys: Tensor, values: Tensor, copies: tuple[Tensor, ...] | None = None
    ) -> Tensor:
        """Describe patches by prototypes.

        Args:
            patches: Patch embeddings [windows, patches, d_model].
            keys: Prototype keys [prototypes, n_heads, d_ff].
            values: Prototype values [prototypes, n_heads, d_ff].
            copies: Of the weights and biases of queries and output, in the type of the products.

        Returns:
            Tokens for the language model [windows, patches, d_llm].
        """
        windows, count, _ = patches.shape
        keys, values = keys.transpose(0, 1), values.transpose(0, 1)  # [n_heads, prototypes, d_ff]
        query, out = self.query_projection, self.out_projection
        weights = (query.weight, query.bias, out.weight, out.bias) if copies is None else copies
        queries = self._heads(F.linear(patches.flatten(0, 1), *weights[:2]))  # [n_heads, windows*patches, d_ff]
        dropout = self.dropout.p if self.training else 0.0
        if devices.launches_kernels(queries.device):  # a CPU's one kernel has no dropout of its own
            mixed = fused_attention(queries, keys, values, dropout)
        else:
            scores = queries @ keys.transpose(1, 2) * self.d_ff**-0.5  # [n_heads, windows*patches, prototypes]
            shares = self.dropout(torch.softmax(scores, dim=-1))
            mixed = shares.to(values.dtype) @ values  # [n_heads, windows*patches, d_ff]
        mixed = mixed.transpose(0, 1).flatten(1)  # [windows*patches, n_heads*d_ff]
        return F.linear(mixed, *weights[2:]).view(windows, count, -1)

    def _heads(self, rows: Tensor) -> Tensor:
        """Split [rows, n_heads*d_ff] into [n_heads, rows, d_ff]."""
        return rows.view(rows.shape[0], self.n_heads, self.d_ff).transpose(0, 1)


class FlattenHead(nn.Module):
    """Reads the forecast off the patch tokens' hidden states; its dropout acts on the forecast itself."""

    def __init__(self, features: int, pred_len: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(features, pred_len)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, copies: tuple[Tensor, ...] | None = None) -> Tensor:
        """Forecast [windows, pred_len] from hidden states [windows, patches, d_ff]; with copies of weight and bias."""
        weights = (self.linear.weight, self.linear.bias) if copies is None else copies
        return self.dropout(F.linear(hidden.transpose(1, 2).flatten(1), *weights))
