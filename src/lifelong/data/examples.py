"""Images and labels as two tensors. N examples, C channels, H × W pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Examples:
    """images (N, C, H, W) uint8 and labels (N,) int64.

    Raises:
        ValueError: another dtype or shape, or lengths that differ.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            raise ValueError(f"images must be uint8 (N, C, H, W), got {self.images.dtype} {tuple(self.images.shape)}")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"labels must be int64 ({len(self.images)},), got {self.labels.dtype} {tuple(self.labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Examples:
        return Examples(self.images.to(device), self.labels.to(device))

    def subset(self, index: Tensor) -> Examples:
        """The examples at these positions, in this order."""
        return Examples(self.images[index], self.labels[index])

    @staticmethod
    def concat(parts: Sequence[Examples]) -> Examples:
        return Examples(torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts]))


def as_input(images: Tensor) -> Tensor:
    """uint8 pixels as float32 in [0, 1], on the same device."""
    return images.to(torch.float32).div_(255)
