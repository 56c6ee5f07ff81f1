"""Backbones that several processes could stumble over."""

from typing import Any

from torch import Tensor, nn

from lifelong.models.mlp import MLP


class Normed(MLP):
    """Batch norm: statistics of its own on each rank."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.norm = nn.BatchNorm1d(self.head.in_features)

    def features(self, x: Tensor) -> Tensor:
        return self.norm(super().features(x))


class HalfUsed(MLP):
    """Parameters that no output depends on."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.spare = nn.Linear(3, 3)
