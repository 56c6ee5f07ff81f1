"""Inputs and labels of N examples: images, features or token ids, in memory or made when asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

ALL = slice(None)


@dataclass(frozen=True)
class Lazy:
    """Inputs that stay where they are, e.g. in a memory map, until some are asked for.

    make: positions (B,) → inputs (B, ...), each by itself.
    """

    make: Callable[[Tensor], Tensor]
    shape: torch.Size
    dtype: torch.dtype

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        return self.make(index if isinstance(index, Tensor) else torch.arange(self.shape[0])[index])


@dataclass(frozen=True)
class Examples:
    """Inputs (N, ...) of any type and labels (N,) int64.

    Raises:
        ValueError: labels of another type, or not one for each input.
    """

    stored: Tensor | Lazy
    labels: Tensor

    def __post_init__(self) -> None:
        num = self.stored.shape[:1]
        if self.labels.dtype != torch.int64 or self.labels.shape != num:
            raise ValueError(f"labels must be int64 {tuple(num)}, got {self.labels.dtype} {tuple(self.labels.shape)}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def inputs(self) -> Tensor:
        """All inputs, in memory."""
        return self.stored[ALL] if isinstance(self.stored, Lazy) else self.stored

    @property
    def lazy(self) -> bool:
        return isinstance(self.stored, Lazy)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input."""
        return tuple(self.stored.shape[1:])

    @property
    def nbytes(self) -> int:
        """Bytes of the inputs."""
        return math.prod(self.stored.shape) * self.stored.dtype.itemsize

    def to(self, device: torch.device | str) -> Examples:
        return Examples(self.inputs.to(device), self.labels.to(device))

    def subset(self, index: Tensor) -> Examples:
        """The examples at these positions, in this order, in memory."""
        return Examples(self.stored[index], self.labels[index])

    def chunks(self, size: int, rows: slice = ALL) -> Iterator[Examples]:
        """The examples at these rows in order, `size` at a time; the last chunk may be smaller."""
        start, stop, step = rows.indices(len(self))
        for first in range(start, stop, size * step):
            part = slice(first, min(first + size * step, stop), step)
            yield Examples(self.stored[part], self.labels[part])

    @staticmethod
    def concat(parts: Sequence[Examples]) -> Examples:
        """All parts in order; lazy if one of them is."""
        labels = torch.cat([part.labels for part in parts])
        if not any(part.lazy for part in parts):
            return Examples(torch.cat([part.inputs for part in parts]), labels)
        stored = [part.stored for part in parts]
        starts = list(accumulate((len(part) for part in parts), initial=0))

        def make(index: Tensor) -> Tensor:
            made = torch.empty(len(index), *stored[0].shape[1:], dtype=stored[0].dtype)
            for part, start, stop in zip(stored, starts, starts[1:], strict=False):
                here = ((index >= start) & (index < stop)).nonzero().flatten()
                made[here] = part[index[here] - start]
            return made

        return Examples(Lazy(make, torch.Size([len(labels), *stored[0].shape[1:]]), stored[0].dtype), labels)


def as_input(stored: Tensor) -> Tensor:
    """What a backbone takes of stored values, on the same device: uint8 pixels as float32 in [0, 1], other floats as
    float32, integers (token ids) as they are."""
    if stored.dtype == torch.uint8:
        return stored.to(torch.float32).div_(255)
    return stored.to(torch.float32) if stored.is_floating_point() else stored
