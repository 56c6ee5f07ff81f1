"""Random views of training images, in batches where they live. B batch, C channels, H × W pixels.

Each is a function of the images and of uniform numbers that the loader draws, so that a resumed run sees the same.
Only training batches are augmented (and what SI, RWalk, EWC++ gather on them), not evaluation or other importance.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def none() -> None:
    """The images as they are."""


class CropFlip:
    """A random H × W window of the image in a black frame, mirrored now and then (He et al. 2016, arXiv 1512.03385).

    One gather for both: kornia's crop_by_indices cuts sample by sample, 4 times slower at B = 128, 28 × 28.

    padding: width of the frame. flip: probability; 0 for images that are not to be mirrored, such as digits.
    """

    num_draws = 3

    def __init__(self, padding: int = 4, flip: float = 0.5) -> None:
        if type(padding) is not int or padding < 0:
            raise ValueError(f"augment.padding must be an integer >= 0, got {padding!r}")
        check_range("flip", flip, 0, 1)
        self.padding, self.flip = padding, flip

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        height, width = images.shape[2:]
        top, left = (draws[:, :2] * (2 * self.padding + 1)).to(torch.int64).unsqueeze(2).unbind(1)
        rows, columns = (torch.arange(side, device=images.device) for side in (height, width))
        columns = torch.where(draws[:, 2:] < self.flip, columns.flip(0), columns)
        wide = width + 2 * self.padding
        index = (top + rows).unsqueeze(2) * wide + (left + columns).unsqueeze(1)  # (B, H, W)
        framed = F.pad(images, [self.padding] * 4).flatten(2)
        return framed.gather(2, index.flatten(1).unsqueeze(1).expand(-1, images.shape[1], -1)).view_as(images)


class Affine:
    """Turned by up to ±degrees, moved by up to ±translate of its size and scaled within 1 ± scale, black outside."""

    num_draws = 4

    def __init__(self, degrees: float = 10, translate: float = 0.1, scale: float = 0.1) -> None:
        for key, value, high in (("degrees", degrees, 180), ("translate", translate, 1), ("scale", scale, 0.9)):
            check_range(key, value, 0, high)
        self.degrees, self.translate, self.scale = degrees, translate, scale

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        from kornia.geometry.transform import get_affine_matrix2d, warp_affine  # 0.2 s to import: only for who uses it

        height, width = images.shape[2:]
        signed = 2 * draws - 1
        sides = torch.tensor([width, height], dtype=torch.float32, device=images.device)
        matrix = get_affine_matrix2d(
            translations=signed[:, :2] * self.translate * sides,
            center=((sides - 1) / 2).expand(len(images), 2),
            scale=1 + signed[:, 2:3].expand(-1, 2) * self.scale,
            angle=signed[:, 3] * self.degrees,
        )
        turned = warp_affine(images.to(torch.float32), matrix[:, :2], (height, width), align_corners=True)
        return turned.round_().clamp_(0, 255).to(torch.uint8)


def check_range(key: str, value: float, low: float, high: float) -> None:
    """Raises ValueError unless `value` is a finite number in [low, high]."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= value <= high:
        raise ValueError(f"augment.{key} must be a number in [{low}, {high}], got {value!r}")
