"""The multilayer perceptron."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from lifelong.models.backbone import Backbone, positive_integers, probability


class MLP(Backbone):
    """Flattened inputs of any shape through fully connected ReLU layers; D = widths[-1]."""

    for_images = False

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        widths: Sequence[int] = (1024, 512, 256),
        dropout: float = 0.0,
        bias: bool = True,
        init: str = "torch",
    ) -> None:
        super().__init__(input_shape, num_classes)
        widths = positive_integers("backbone.widths", widths)
        dropout = probability("backbone.dropout", dropout)
        if not isinstance(bias, bool):
            raise ValueError(f"backbone.bias must be true or false, got {bias!r}")
        self.body = nn.Sequential(nn.Flatten())
        for fan_in, fan_out in zip([math.prod(self.input_shape), *widths], widths, strict=False):
            self.body.extend([nn.Linear(fan_in, fan_out, bias), nn.ReLU(), nn.Dropout(dropout)])
        self.head = nn.Linear(widths[-1], num_classes, bias)
        self.initialise(init)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x)
