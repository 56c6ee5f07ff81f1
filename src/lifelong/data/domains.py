"""Several sources, each a task (the domains of e.g. Ebrahimi et al. 2020, ACL: arXiv 2003.09553), in one shape."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.data.examples import in_chunks
from lifelong.data.source import Source, check_images
from lifelong.data.sources.pixels import as_sides
from lifelong.data.stream import TaskStream, padded_shape

GREY = (0.299, 0.587, 0.114)
"""Luma of ITU-R BT.601, as kornia.color.rgb_to_grayscale has it."""


class Domains(TaskStream):
    """Task j is source j. In domain-incremental learning label c is column c, whatever it means in each source.

    Args:
        sources: by the name of their entry in the configuration, in the order of the tasks.
        size: pixels of all images, a side or [H, W]; None: the largest H and the largest W of the padded sources.
        channels: of all images; None: the most of the sources.

    Raises:
        ValueError: no source, or a size or number of channels that the images cannot be brought to.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        size: int | Sequence[int] | None = None,
        channels: int | None = None,
        **stream: Any,
    ) -> None:
        if not sources:
            raise ValueError("dataset.sources must hold at least one source, got none")
        for name, source in sources.items():
            check_images(f"dataset.sources.{name}", source)
        shapes = [padded_shape(source.train.shape, stream.get("pad", 0)) for source in sources.values()]
        most, *largest = (max(sizes) for sizes in zip(*shapes, strict=True))
        height, width = as_sides("dataset.size", size) or largest
        wanted = most if channels is None else channels
        for name, (own, _, _) in zip(sources, shapes, strict=True):
            check_channels(name, own, wanted)
        super().__init__(
            list(sources.values()),
            [len(source.classes) for source in sources.values()],
            [source.name for source in sources.values()],
            input_shape=(wanted, height, width),
            **stream,
        )

    def changed(self, base: int, inputs: Tensor) -> Tensor:
        return in_shape(inputs, self.input_shape)


def check_channels(name: str, own: int, channels: int) -> None:
    """Raises ValueError unless images can be brought from `own` to `channels`: 1 → any number, 3 → 1, equal."""
    if type(channels) is not int or channels < 1 or not (own in (1, channels) or (own, channels) == (3, 1)):
        allowed = {1: "an integer >= 1", 3: "1 or 3"}.get(own, own)
        reason = f"as dataset.sources.{name} has {own}"
        raise ValueError(f"dataset.channels must be {allowed} or null, {reason}, got {channels!r}")


def in_shape(images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Images (N, C, H, W) uint8 in `shape` (C', H', W'): grey is repeated over channels, three channels become luma.

    Resized bilinearly, antialiased where they shrink, rounded to uint8; on the images' device. Torch's own resize:
    kornia's blurs first, which is slower and takes the same function behind it. Images of that shape are returned as
    they are.
    """
    if images.shape[1:] == shape:
        return images
    channels, *size = shape

    def change(x: Tensor) -> Tensor:
        if x.shape[1] == 3 and channels == 1:
            x = (x * torch.tensor(GREY, device=x.device).view(3, 1, 1)).sum(1, keepdim=True)
        if list(x.shape[2:]) != size:
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)
        return x.expand(-1, channels, -1, -1)

    return in_chunks(images, change)
