"""S convolutional networks of one shape, as convolutions in S groups; the backward pass is autograd's.

S members, B samples, C channels, F features of an input, K output columns.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong.stacked.network import Network, Params


class Convolutional(Network):
    """Between convolutions a sample's channels are those of all members side by side: (B, S·C, H, W).

    Args:
        backbones: of class `lifelong.models.cnn.CNN`, those of the members, of one shape, without dropout.
    """

    def __init__(self, backbones: Sequence[nn.Module]) -> None:
        super().__init__(backbones)
        first: Any = backbones[0]
        self.body, self.input_shape = first.body, first.input_shape

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        return self._forward(x, self.weights)

    def gradients(self, x: Tensor, y: Tensor, hidden: Tensor | None) -> tuple[Tensor, Params]:
        weights = {name: w.detach().requires_grad_() for name, w in self.weights.items()}
        z = self._forward(x, weights)
        z = z if hidden is None else z.masked_fill(hidden, -torch.inf)
        labels = y.expand(z.shape[:2])
        losses = F.cross_entropy(z.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape).mean(1)
        grads = torch.autograd.grad(losses.sum(), list(weights.values()))
        laid_out = [g.contiguous() for g in grads]  # as the weights are: torch's fused optimisers take that for granted
        return losses.detach(), dict(zip(weights, laid_out, strict=True))

    def mean_squares(self, members: slice) -> None:
        """Nothing: a layer's output at several places shares a weight, so that δ² a²ᵀ is not the square."""

    def _forward(self, x: Tensor, weights: Params) -> Tensor:
        """z (S, B, K); x: (B, F) or (S, B, F), of images (C, H, W)."""
        a, groups = x.unflatten(-1, self.input_shape), 1  # the first convolution of a batch that all members share
        if x.dim() == 3:
            a, groups = a.transpose(0, 1).flatten(1, 2), len(self)
        for name, layer in self.body.named_children():
            if isinstance(layer, nn.Conv2d):
                weight, bias = weights[f"body.{name}.weight"].flatten(0, 1), weights[f"body.{name}.bias"].flatten()
                a, groups = F.conv2d(a, weight, bias, layer.stride, layer.padding, groups=groups), len(self)
            elif isinstance(layer, nn.Flatten):
                a = a.unflatten(1, (len(self), -1)).transpose(0, 1).flatten(2)
            elif isinstance(layer, nn.Linear):
                a = _linear(a, f"body.{name}", weights)
            else:
                a = layer(a)
        return _linear(a, "head", weights)


def _linear(a: Tensor, name: str, weights: Params) -> Tensor:
    return torch.baddbmm(weights[f"{name}.bias"].unsqueeze(1), a, weights[f"{name}.weight"].mT)
