"""The residual network of 18 layers for small images (He et al. 2016, 1512.03385)."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from lifelong.models.backbone import Backbone, positive_integer


class ResNet18(Backbone):
    """CIFAR form: a 3×3 stem without max-pooling, four stages of two blocks, mean over the image; D = 8 · width.

    width: channels of the first stage, doubled at each next one. 64 is the original, 20 the reduced network of
    GEM (Lopez-Paz & Ranzato 2017) and those that followed it.
    norm: "batch", or "group", which keeps no running statistics that a later task would move: groups of channels as
    many as the greatest common divisor of 32 and the channels.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        width: int = 64,
        norm: str = "batch",
        init: str = "torch",
    ) -> None:
        super().__init__(input_shape, num_classes)
        width = positive_integer("backbone.width", width)
        if norm not in ("batch", "group"):
            raise ValueError(f'backbone.norm must be "batch" or "group", got {norm!r}')
        self.stem = nn.Sequential(
            nn.Conv2d(self.input_shape[0], width, 3, padding=1, bias=False), _norm(norm, width), nn.ReLU()
        )
        self.stages = nn.Sequential(Block(width, width, 1, norm), Block(width, width, 1, norm))
        for fan_out in (2 * width, 4 * width, 8 * width):
            self.stages.extend([Block(fan_out // 2, fan_out, 2, norm), Block(fan_out, fan_out, 1, norm)])
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8 * width, num_classes)
        self.initialise(init)

    def features(self, x: Tensor) -> Tensor:
        return self.pool(self.stages(self.stem(x)))


class Block(nn.Module):
    """relu(residual(x) + shortcut(x)); the shortcut is a 1×1 convolution where the shape changes."""

    def __init__(self, fan_in: int, fan_out: int, stride: int, norm: str) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(fan_in, fan_out, 3, stride, padding=1, bias=False),
            _norm(norm, fan_out),
            nn.ReLU(),
            nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=False),
            _norm(norm, fan_out),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or fan_in != fan_out:
            self.shortcut.extend([nn.Conv2d(fan_in, fan_out, 1, stride, bias=False), _norm(norm, fan_out)])
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.residual(x) + self.shortcut(x))


def _norm(norm: str, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(math.gcd(32, channels), channels)
