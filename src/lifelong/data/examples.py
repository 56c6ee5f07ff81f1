"""Images and labels as two tensors, or as a promise of them. N examples, C channels, H × W pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

ALL = slice(None)


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

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return tuple(self.images.shape[1:])  # type: ignore[return-value]

    @property
    def nbytes(self) -> int:
        """Bytes of the images."""
        return len(self) * math.prod(self.shape)

    def to(self, device: torch.device | str) -> Examples:
        return Examples(self.images.to(device), self.labels.to(device))

    def subset(self, index: Tensor) -> Examples:
        """The examples at these positions, in this order, in memory."""
        return Examples(self.images[index], self.labels[index])

    def chunks(self, size: int, rows: slice = ALL) -> Iterator[Examples]:
        """The examples at these rows in order, `size` at a time; the last chunk may be smaller."""
        images, labels = self.images[rows], self.labels[rows]
        for start in range(0, len(labels), size):
            yield Examples(images[start : start + size], labels[start : start + size])

    @staticmethod
    def concat(parts: Sequence[Examples]) -> Examples:
        """All parts in order; deferred if one of them is."""
        labels = torch.cat([p.labels for p in parts])
        if any(isinstance(p, Deferred) for p in parts):
            return Deferred([piece for p in parts for piece in _pieces(p)], labels)
        return Examples(torch.cat([p.images for p in parts]), labels)


@dataclass(frozen=True)
class Piece:
    """N images (N, C, H, W) made when asked for: `transform` of the rows (N,) of `images`, or of all of them.

    `transform` treats every image by itself and gives images of shape (C, H, W).
    """

    images: Tensor
    rows: Tensor | None
    transform: Callable[[Tensor], Tensor]
    shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.images if self.rows is None else self.rows)

    def take(self, index: Tensor | None) -> Tensor:
        """The images at these positions; None: all."""
        if index is not None and self.rows is not None:
            index = self.rows[index]
        elif index is None:
            index = self.rows
        return self.transform(self.images if index is None else self.images.index_select(0, index))


class Deferred(Examples):
    """Examples whose images stay where they are (e.g. memory-mapped) until some are asked for; labels are at hand.

    `images` makes all of them, `subset` and `chunks` only those they give.
    """

    pieces: list[Piece]

    def __init__(self, pieces: Sequence[Piece], labels: Tensor) -> None:
        for name, value in (("pieces", list(pieces)), ("labels", labels)):
            object.__setattr__(self, name, value)  # the base class is frozen

    @property
    def images(self) -> Tensor:
        made = [piece.take(None) for piece in self.pieces]
        return made[0] if len(made) == 1 else torch.cat(made)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.pieces[0].shape

    def subset(self, index: Tensor) -> Examples:
        if len(self.pieces) == 1:
            return Examples(self.pieces[0].take(index), self.labels[index])
        images = torch.empty(len(index), *self.pieces[0].shape, dtype=torch.uint8)
        starts = accumulate((len(piece) for piece in self.pieces), initial=0)
        for start, piece in zip(starts, self.pieces, strict=False):
            here = ((index >= start) & (index < start + len(piece))).nonzero().flatten()
            images[here] = piece.take(index[here] - start)
        return Examples(images, self.labels[index])

    def chunks(self, size: int, rows: slice = ALL) -> Iterator[Examples]:
        index = torch.arange(len(self))[rows]
        for start in range(0, len(index), size):
            yield self.subset(index[start : start + size])


def _pieces(examples: Examples) -> list[Piece]:
    if isinstance(examples, Deferred):
        return examples.pieces
    return [Piece(examples.images, None, _as_they_are, examples.shape)]


def _as_they_are(images: Tensor) -> Tensor:
    return images


def as_input(images: Tensor) -> Tensor:
    """uint8 pixels as float32 in [0, 1], on the same device."""
    return images.to(torch.float32).div_(255)
