"""From image files to one array: decoded with Pillow, brought to one mode and size, written one by one.

N images, C channels, H × W pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

Opening = tuple[str, Callable[[], "Image | None"]]
"""What an image is called in messages, and how it is opened; None: there is none."""
MODES = ("L", "RGB")


@dataclass(frozen=True)
class PixelFormat:
    """What all images are brought to.

    Args:
        mode: "L" (grey, C = 1), "RGB" (C = 3), or None: all images must be of one of the two modes.
        size: H = W or (H, W), resized bilinearly with antialiasing, aspect ratio not kept; None: all of one size.

    Raises:
        ValueError: another mode, or a size that is not one or two integers >= 1.
    """

    mode: str | None = None
    size: int | Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.mode is not None and self.mode not in MODES:
            raise ValueError(f"dataset.source.mode must be L, RGB or null, got {self.mode!r}")
        sides = [self.size] if isinstance(self.size, int) else self.size
        lengths = sides is None or (isinstance(sides, Sequence) and len(sides) in (1, 2))
        if not lengths or any(type(v) is not int or v < 1 for v in sides or ()):
            raise ValueError(
                f"dataset.source.size must be an integer >= 1, a list of two (height, width) or null, got {self.size!r}"
            )

    @property
    def height_width(self) -> list[int] | None:
        if self.size is None:
            return None
        sides = [self.size] if isinstance(self.size, int) else self.size
        return [sides[0], sides[-1]]

    def array(self, image: Image) -> np.ndarray:
        """(C, H, W) uint8. Raises ValueError for a mode that cannot be converted without loss of depth, or may not."""
        from PIL.Image import Resampling

        if image.mode.startswith(("I", "F")):
            raise ValueError(f"it has more than 8 bits per channel, mode {image.mode}")
        if self.mode is not None:
            image = image.convert(self.mode)
        elif image.mode not in MODES:
            raise ValueError(f"its mode is {image.mode}: set dataset.source.mode to L or RGB")
        if self.height_width and self.height_width != [image.height, image.width]:
            image = image.resize(self.height_width[::-1], Resampling.BILINEAR)
        pixels = np.asarray(image)
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def write_images(path: Path, images: Sequence[Opening], pixel_format: PixelFormat) -> None:
    """Decode at least one image into the .npy file `path`, (N, C, H, W) uint8, which need not fit into memory.

    Raises:
        ValueError: an image that cannot be read, or is not of the first one's shape; the message has its name.
        OSError: `path` cannot be written.
    """
    shape: tuple[int, ...] | None = None
    with path.open("wb") as file:  # not through a memory map: a full disk is to be an error, not a signal
        for name, opening in images:
            pixels = _decoded(name, opening, pixel_format)
            if shape is None:
                shape = pixels.shape
                header = {"descr": "|u1", "fortran_order": False, "shape": (len(images), *shape)}
                np.lib.format.write_array_header_1_0(file, header)
            if pixels.shape != shape:
                wanted = "mode" if len(pixels) != shape[0] else "size"
                raise ValueError(
                    f"dataset.source.{wanted} must be set where images differ: {name} is {pixels.shape} (C, H, W), "
                    f"the first is {shape}"
                )
            file.write(pixels.tobytes())


def _decoded(name: str, opening: Callable[[], Image | None], pixel_format: PixelFormat) -> np.ndarray:
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
