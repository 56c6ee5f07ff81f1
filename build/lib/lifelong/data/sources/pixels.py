"""From image files to one array: decoded with Pillow, brought to one mode and size, written one by one.

N images, C channels, H × W pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

Opening = tuple[str, Callable[[], "Image"]]
"""What an image is called in messages, and how it is opened."""
MODES = {"L": 1, "RGB": 3}
ORIENTATION = 0x0112  # the EXIF tag


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
        size = [self.size] if isinstance(self.size, int) else self.size
        lengths = size is None or (isinstance(size, Sequence) and len(size) in (1, 2))
        if not lengths or any(type(v) is not int or v < 1 for v in size or ()):
            raise ValueError(
                f"dataset.source.size must be an integer >= 1, a list of two (height, width) or null, got {self.size!r}"
            )

    def as_request(self) -> dict[str, Any]:
        """Plain data for the key of a cache."""
        return {"mode": self.mode, "size": self._height_width()}

    def array(self, image: Image) -> np.ndarray:
        """(C, H, W) uint8. Raises ValueError for a mode that cannot be converted without loss of depth, or may not."""
        from PIL.Image import Resampling

        if image.mode.startswith(("I", "F")):
            raise ValueError(f"it has more than 8 bits per channel, mode {image.mode}")
        if self.mode is not None:
            image = image.convert(self.mode)
        elif image.mode not in MODES:
            raise ValueError(f"its mode is {image.mode}: set dataset.source.mode to L or RGB")
        height_width = self._height_width()
        if height_width and height_width != [image.height, image.width]:
            image = image.resize((height_width[1], height_width[0]), Resampling.BILINEAR)
        pixels = np.asarray(image)
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

    def _height_width(self) -> list[int] | None:
        if self.size is None:
            return None
        size = [self.size] if isinstance(self.size, int) else list(self.size)
        return [size[0], size[-1]]


def write_images(path: Path, images: Iterable[Opening], num: int, pixel_format: PixelFormat) -> None:
    """Decode `num` >= 1 images into the .npy file `path`, (N, C, H, W) uint8, which need not fit into memory.

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
                header = {"descr": "|u1", "fortran_order": False, "shape": (num, *shape)}
                np.lib.format.write_array_header_1_0(file, header)
            if pixels.shape != shape:
                wanted = "mode" if len(pixels) != shape[0] else "size"
                raise ValueError(
                    f"dataset.source.{wanted} must be set where images differ: {name} is {pixels.shape} (C, H, W), "
                    f"the first is {shape}"
                )
            file.write(pixels.tobytes())


def _decoded(name: str, opening: Callable[[], Image], pixel_format: PixelFormat) -> np.ndarray:
    from PIL.Image import DecompressionBombError
    from PIL.ImageOps import exif_transpose

    try:
        with opening() as image:
            upright = exif_transpose(image) if image.getexif().get(ORIENTATION, 1) != 1 else image
            return pixel_format.array(upright)
    except (OSError, ValueError, SyntaxError, struct.error, DecompressionBombError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"dataset.source: {name} cannot be used ({reason})") from error
