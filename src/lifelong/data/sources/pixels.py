"""From image files to one array: decoded with Pillow, brought to one mode and size, written one by one.

N images, C channels, H × W pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

Opening = tuple[str, Callable[[], "Image | None"]]
"""What an image is called in messages, and how it is opened; None: there is none."""
MODES = ("L", "RGB")


def as_sides(key: str, size: int | Sequence[int] | None) -> list[int] | None:
    """[H, W] of a side or [H, W]; raises ValueError, naming `key`, unless they are integers >= 1, or null."""
    if size is None:
        return None
    sides = [size, size] if isinstance(size, int) else list(size) if isinstance(size, Sequence) else []
    if len(sides) != 2 or not all(type(side) is int and side >= 1 for side in sides):
        raise ValueError(f"{key} must be an integer >= 1, [height, width] or null, got {size!r}")
    return sides


class PixelFormat:
    """What all images are brought to; raises ValueError for another mode or size.

    mode: "L" (grey, C = 1), "RGB" (C = 3), or None: all images must be of one of the two modes.
    size: a side or [H, W], resized bilinearly with antialiasing, aspect ratio not kept; None: all of one size.
    """

    def __init__(self, mode: str | None, size: int | Sequence[int] | None) -> None:
        if mode is not None and mode not in MODES:
            raise ValueError(f"dataset.source.mode must be L, RGB or null, got {mode!r}")
        self.mode, self.sides = mode, as_sides("dataset.source.size", size)

    def array(self, image: Image) -> np.ndarray:
        """(C, H, W) uint8. Raises ValueError for a mode that cannot be converted without loss of depth, or may not."""
        from PIL.Image import Resampling

        if image.mode.startswith(("I", "F")):
            raise ValueError(f"it has more than 8 bits per channel, mode {image.mode}")
        if self.mode is not None:
            image = image.convert(self.mode)
        elif image.mode not in MODES:
            raise ValueError(f"its mode is {image.mode}: set dataset.source.mode to L or RGB")
        if self.sides and self.sides != [image.height, image.width]:
            image = image.resize(self.sides[::-1], Resampling.BILINEAR)
        pixels = np.asarray(image)
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def decoded(images: Sequence[Opening], pixel_format: PixelFormat, path: Path) -> Tensor:
    """(N, C, H, W) uint8 on the file `path`, into which at least one image is decoded: they need not fit into memory.

    Raises:
        ValueError: an image that cannot be read, or is not of the first one's shape; the message has its name.
        OSError: `path` cannot be written.
    """
    shape: tuple[int, ...] = ()
    with path.open("wb") as file:  # not through a memory map: a full disk is to be an error, not a signal
        for name, opening in images:
            pixels = _pixels(name, opening, pixel_format)
            shape = shape or pixels.shape
            if pixels.shape != shape:
                key = f"dataset.source.{'size' if len(pixels) == shape[0] else 'mode'}"
                sizes = f"{name} is {pixels.shape} (C, H, W), the first is {shape}"
                raise ValueError(f"{key} must be set where images differ: {sizes}")
            file.write(pixels.tobytes())
    return torch.from_file(str(path), size=path.stat().st_size, dtype=torch.uint8).view(len(images), *shape)


def _pixels(name: str, opening: Callable[[], Image | None], pixel_format: PixelFormat) -> np.ndarray:
    from PIL.Image import DecompressionBombError
    from PIL.ImageOps import exif_transpose

    try:
        image = opening()
        if image is None:
            raise ValueError("there is none")
        with image:
            return pixel_format.array(exif_transpose(image))
    except (OSError, ValueError, SyntaxError, struct.error, DecompressionBombError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"dataset.source: {name} cannot be used ({reason})") from error
