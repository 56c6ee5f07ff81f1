"""Rotated images, an angle per task (rotated MNIST: Lopez-Paz & Ranzato 2017, arXiv 1706.08840)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lifelong.data.examples import in_chunks
from lifelong.data.seeds import derived_generator
from lifelong.data.source import Source
from lifelong.data.stream import MAX_TASKS, TaskStream

INTERPOLATIONS = ("bilinear", "nearest")
ANGLES = 6
"""Keeps the draws of angles apart from the other draws of a seed."""


class Rotated(TaskStream):
    """Task j is the whole source turned by angles[j] degrees, counter-clockwise as displayed.

    Args:
        angles: a list, or "random": `num_tasks` angles uniform in [0°, 180°), drawn by the stream's seed (DER: Buzzega
            et al. 2020, arXiv 2004.07211).
        num_tasks: of random angles; None with a list.
        interpolation: see `rotate`.

    Raises:
        ValueError: no angles, or one that is not a finite number, or a source of anything but images.
    """

    def __init__(
        self,
        source: Source,
        angles: Sequence[float] | str,
        num_tasks: int | None = None,
        interpolation: str = "bilinear",
        **stream: Any,
    ) -> None:
        if interpolation not in INTERPOLATIONS:
            allowed = ", ".join(INTERPOLATIONS)
            raise ValueError(f"dataset.interpolation must be one of {allowed}, got {interpolation!r}")
        self.angles, self.interpolation = as_angles(angles, num_tasks, stream.get("seed", 0)), interpolation
        names = [f"rot{a:g}" for a in self.angles]
        super().__init__(source, [len(source.classes)] * len(names), names, **stream)
        self.check_images("dataset.angles")

    def changed(self, base: int, inputs: Tensor) -> Tensor:
        return rotate(inputs, self.angles[base], self.interpolation)


def as_angles(angles: Sequence[float] | str, num_tasks: int | None, seed: int) -> list[float]:
    """Degrees of every task; a random one is a function of (seed, task) alone."""
    if angles == "random":
        if type(num_tasks) is not int or not 1 <= num_tasks <= MAX_TASKS:
            allowed = f"an integer in 1..{MAX_TASKS} with dataset.angles=random"
            raise ValueError(f"dataset.num_tasks must be {allowed}, got {'null' if num_tasks is None else num_tasks}")
        draws = [derived_generator(seed, j, ANGLES) for j in range(num_tasks)]
        return [180 * torch.rand((), dtype=torch.float64, generator=draw).item() for draw in draws]
    numbers = list(angles) if isinstance(angles, Sequence) and not isinstance(angles, str) else []
    if not numbers or not all(type(a) in (int, float) and math.isfinite(a) for a in numbers):
        allowed = "a non-empty list of finite numbers (degrees) or random"
        raise ValueError(f"dataset.angles must be {allowed}, got {angles!r}")
    if num_tasks is not None:
        raise ValueError(f"dataset.num_tasks must be null with a list of angles, which has as many, got {num_tasks!r}")
    return [float(a) for a in numbers]


def rotate(images: Tensor, angle: float, interpolation: str = "bilinear") -> Tensor:
    """Images (N, C, H, W) uint8 turned by `angle` degrees about their centre, counter-clockwise as displayed.

    Bilinear, rounded to uint8, or the nearest pixel; zeros outside; on the images' device. A multiple of 360° changes
    nothing.
    """
    if angle % 360 == 0 or len(images) == 0:
        return images
    if interpolation == "nearest":
        index, outside = nearest(images.shape[2], images.shape[3], angle)
        index, outside = index.to(images.device), outside.to(images.device)
        rows = images.flatten(2).flatten(0, 1)
        return rows.gather(1, index.expand(len(rows), -1)).masked_fill_(outside, 0).view_as(images)
    from kornia.geometry.transform import rotate as turn  # 0.2 s to import: only for who rotates

    degrees = torch.tensor([float(angle)], device=images.device)  # one for the batch: one sampling grid, not N

    def change(x: Tensor) -> Tensor:
        return turn(x, degrees, mode="bilinear", padding_mode="zeros", align_corners=True)

    return in_chunks(images, change)


def nearest(height: int, width: int, angle: float) -> tuple[Tensor, Tensor]:
    """Which pixel of an image each pixel of the turned one is, (H·W,) int64, and whether it would be outside, bool.

    Of two pixels that are as near the right or lower one is taken, as by Pillow; float64, and rounded, so that ties are
    ties. (kornia's nearest leaves them to float32.)
    """
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in (height, width)), indexing="ij")
    column = ((x * cos - y * sin + width / 2).round(decimals=9)).floor().flatten().to(torch.int64)
    row = ((x * sin + y * cos + height / 2).round(decimals=9)).floor().flatten().to(torch.int64)
    outside = (column < 0) | (column >= width) | (row < 0) | (row >= height)
    return (row * width + column).masked_fill_(outside, 0), outside
