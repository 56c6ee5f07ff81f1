"""Backbones that several processes could stumble over."""

from typing import Any

from torch import Tensor, nn

from lifelong.models.mlp import MLP


class Normed(MLP):
    """Batch norm: statistics of its own on each rank."""

    def __init__(self, input_shape: Any, num_classes: int, widths: Any, bias: bool, dropout: float) -> None:
        super().__init__(input_shape, num_classes, widths, bias=bias, dropout=dropout)
        self.norm = nn.BatchNorm1d(self.head.in_features)

    def features(self, x: Tensor) -> Tensor:
        return self.norm(super().features(x))


class HalfUsed(MLP):
    """Parameters that no output depends on."""

    def __init__(self, input_shape: Any, num_classes: int, widths: Any, bias: bool, dropout: float) -> None:
        super().__init__(input_shape, num_classes, widths, bias=bias, dropout=dropout)
        self.spare = nn.Linear(3, 3)
