"""A small convolutional network."""

from collections.abc import Sequence

from torch import Tensor, nn

from lifelong.models.backbone import Backbone, positive_integer, positive_integers, probability


class CNN(Backbone):
    """3×3 convolutions, each with ReLU and 2×2 max-pooling, then one fully connected ReLU layer; D = hidden."""

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        channels: Sequence[int] = (32, 64),
        hidden: int = 128,
        dropout: float = 0.0,
        init: str = "torch",
    ) -> None:
        super().__init__(input_shape, num_classes)
        channels = positive_integers("backbone.channels", channels)
        hidden = positive_integer("backbone.hidden", hidden)
        dropout = probability("backbone.dropout", dropout)
        colours, height, width = self.input_shape
        poolings = min(height, width).bit_length() - 1
        if len(channels) > poolings:
            raise ValueError(
                f"backbone.channels must have at most {poolings} entries for {height}×{width} images, "
                f"as each halves them, got {list(channels)}"
            )
        self.body = nn.Sequential()
        for fan_in, fan_out in zip([colours, *channels], channels, strict=False):
            self.body.extend([nn.Conv2d(fan_in, fan_out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)])
        pixels = (height >> len(channels)) * (width >> len(channels))
        self.body.extend([nn.Flatten(), nn.Linear(channels[-1] * pixels, hidden), nn.ReLU(), nn.Dropout(dropout)])
        self.head = nn.Linear(hidden, num_classes)
        self.initialise(init)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x)
