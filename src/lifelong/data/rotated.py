"""Rotated images, an angle per task (rotated MNIST: Lopez-Paz & Ranzato 2017, arXiv 1706.08840)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lifelong.data.source import Source
from lifelong.data.stream import TaskStream

CHUNK = 4096


class Rotated(TaskStream):
    """Task j is the whole source turned by angles[j] degrees, counter-clockwise as displayed.

    Raises:
        ValueError: no angles, or one that is not a finite number, or a source of anything but images.
    """

    def __init__(self, source: Source, angles: Sequence[float], **stream: Any) -> None:
        numbers = isinstance(angles, Sequence) and all(type(a) in (int, float) and math.isfinite(a) for a in angles)
        if not numbers or len(angles) == 0:
            raise ValueError(f"dataset.angles must be a non-empty list of finite numbers (degrees), got {angles!r}")
        self.angles = [float(a) for a in angles]
        names = [f"rot{angle:g}" for angle in self.angles]
        super().__init__(source, [len(source.classes)] * len(names), names, **stream)
        self.check_images("dataset.angles")

    def changed(self, base: int, inputs: Tensor) -> Tensor:
        return rotate(inputs, self.angles[base])


def rotate(images: Tensor, angle: float) -> Tensor:
    """Images (N, C, H, W) uint8 turned by `angle` degrees about their centre, counter-clockwise as displayed.

    Bilinear with zeros outside, rounded to uint8, in batches on the images' device. A multiple of 360° changes nothing.
    """
    if angle % 360 == 0 or len(images) == 0:
        return images
    from kornia.geometry.transform import rotate as turn  # 0.2 s to import: only for who rotates

    turned = torch.empty_like(images)
    degrees = torch.tensor([float(angle)], device=images.device)  # one for the batch: one sampling grid, not N
    for chunk, out in zip(images.split(CHUNK), turned.split(CHUNK), strict=True):
        pixels = turn(chunk.to(torch.float32), degrees, mode="bilinear", padding_mode="zeros", align_corners=True)
        out.copy_(pixels.round_().clamp_(0, 255))
    return turned
