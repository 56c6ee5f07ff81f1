"""Networks sized from the stream: features φ(x) (B, D), and one linear head over all K classes of the stream.

Every activation is a module of its own and no module is called twice in a forward pass, so that what a hook sees of a
module is all there is to it: the closed forms of importance per layer rely on that.
"""

from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

INITS = ("torch", "xavier", "truncated_normal")


class Backbone(nn.Module):
    """forward: x (B, ...) → logits (B, K) = head(features(x)).

    input_shape: of one input, (C, H, W) of an image, and num_classes: K, both given by the stream.
    """

    for_images: ClassVar[bool] = True
    """Whether inputs must be (C, H, W)."""
    head: nn.Linear

    def __init__(self, input_shape: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.input_shape, self.num_classes = tuple(input_shape), num_classes
        if self.for_images and len(self.input_shape) != 3:
            got = list(self.input_shape)
            raise ValueError(
                f"backbone must be mlp, or one of your own, for inputs that are no images, got shape {got}"
            )

    @torch.no_grad()
    def initialise(self, init: str) -> None:
        """Draw the weights of linear and convolutional layers; norms stay as they are.

        init: "torch" leaves torch's own; "xavier" is uniform within ±√(6/(fan_in + fan_out)), biases 0 (Glorot & Bengio
        2010; Keras's default); "truncated_normal" has σ = 0.1, cut at 2 σ, biases 0.1 (A-GEM: Chaudhry et al. 2019).
        """
        if init not in INITS:
            raise ValueError(f"backbone.init must be one of {', '.join(INITS)}, got {init!r}")
        layers = [] if init == "torch" else [m for m in self.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        for layer in layers:
            if init == "xavier":
                nn.init.xavier_uniform_(layer.weight)
            else:
                nn.init.trunc_normal_(layer.weight, std=0.1, a=-0.2, b=0.2)
            if layer.bias is not None:
                layer.bias.fill_(0.0 if init == "xavier" else 0.1)

    def features(self, x: Tensor) -> Tensor:
        """φ(x): (B, ...) → (B, D), what the head sees."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def positive_integer(key: str, value: object) -> int:
    """`value`, if it is one."""
    if type(value) is not int or value < 1:
        raise ValueError(f"{key} must be a positive integer, got {value!r}")
    return value


def positive_integers(key: str, values: object) -> tuple[int, ...]:
    """`values` as a tuple, if it is a non-empty list of positive integers."""
    numbers = tuple(values) if isinstance(values, Iterable) else ()
    if not numbers or not all(type(number) is int and number > 0 for number in numbers):
        raise ValueError(f"{key} must be a non-empty list of positive integers, got {values!r}")
    return numbers


def probability(key: str, value: float) -> float:
    """`value`, if it is the probability of a dropout that leaves something."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{key} must be a number in [0, 1), got {value!r}")
    return value
