"""The mapping layer: a trained [prototypes, vocabulary] matrix over the frozen word embeddings."""

from typing import Any

import torch
from torch import Tensor, nn


class _MapVocabulary(torch.autograd.Function):
    """prototypes = weight @ embeddings + bias, in the compute type, with the gradient of the weight in fp32."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, embeddings: Tensor) -> Tensor:
        ctx.save_for_backward(embeddings)
        ctx.grad_dtype = weight.dtype
        return weight.to(embeddings.dtype) @ embeddings + bias.to(embeddings.dtype).unsqueeze(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad,) = grads
        (embeddings,) = ctx.saved_tensors
        weight_grad = grad @ embeddings.t()
        return weight_grad.to(ctx.grad_dtype), grad.sum(dim=1, dtype=torch.float32), None


class MappingLayer(nn.Linear):
    """Vocabulary to prototypes; its state-dict names are those of the published linear layer."""

    def prototypes(self, embeddings: Tensor) -> Tensor:
        """Text prototypes [prototypes, hidden] of frozen embeddings [vocabulary, hidden], in their type."""
        return _MapVocabulary.apply(self.weight, self.bias, embeddings)
