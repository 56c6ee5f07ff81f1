"""What the network is given of an image: x/255, or that with zero mean and unit variance per channel.

It is the learner's (`learner.as_input`), and whatever feeds a network asks the learner: training batches, importance,
evaluation and the choice of exemplars. (A module in front of the backbone would change every parameter's name.)
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lifelong.data.examples import CHUNK, Examples, as_input
from lifelong.data.stream import TaskStream

AsInput = Callable[[Tensor], Tensor]
"""Stored inputs (B, ...) → x (B, ...), on the same device."""


class Normalise:
    """x = (as_input(image) − mean)/std per channel; raises ValueError unless all are finite and each std > 0."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], as_input: AsInput = as_input) -> None:
        if not all(math.isfinite(m) for m in mean) or not all(math.isfinite(s) and s > 0 for s in std):
            raise ValueError(f"normalise.mean must be finite and normalise.std > 0, got {list(mean)} and {list(std)}")
        self.mean, self.std, self.as_input = list(map(float, mean)), list(map(float, std)), as_input
        self._on: dict[torch.device, Tensor] = {}

    def __call__(self, images: Tensor) -> Tensor:
        x = self.as_input(images)
        if x.device not in self._on:
            self._on[x.device] = torch.tensor([self.mean, self.std], device=x.device)[:, :, None, None]
        mean, std = self._on[x.device]
        return x.sub_(mean).div_(std)


def none(stream: TaskStream) -> AsInput:
    """What the source gives: pixels in [0, 1], features and token ids as they are."""
    return stream.as_input


def first_task(stream: TaskStream) -> AsInput:
    """By mean and std of the first task's training images, as the source's as_input gives them.

    Later tasks are not known when the first is learned.

    Raises ValueError for a channel without variance, or a source of anything but images.
    """
    stream.check_images("normalise")
    train = stream.task(0).train
    mean, std = mean_and_std(train) if stream.as_input is as_input else moments(train, stream.as_input)
    if min(std) == 0:
        raise ValueError(f"normalise must be none: a channel of task {stream.names[0]} is constant, got std {std}")
    return Normalise(mean, std, stream.as_input)


def given(stream: TaskStream, mean: Sequence[float], std: Sequence[float]) -> AsInput:
    """By numbers known beforehand, of what the source's as_input gives: pixels in [0, 1].

    Raises ValueError unless there is one for each channel, or for a source of anything but images.
    """
    stream.check_images("normalise")
    num_channels = stream.input_shape[0]
    for key, values in (("mean", mean), ("std", std)):
        if len(values) != num_channels:
            raise ValueError(f"normalise.{key} must be a list of {num_channels} numbers, one a channel, got {values}")
    return Normalise(mean, std, stream.as_input)


def mean_and_std(examples: Examples) -> tuple[list[float], list[float]]:
    """Per channel, of pixels/255; std divides by the number of pixels. Exact: from counts of the 256 values."""
    num_channels = examples.shape[0]
    counts = torch.zeros(num_channels, 256, dtype=torch.float64)
    for chunk in examples.chunks(CHUNK):
        for c in range(num_channels):
            counts[c] += chunk.inputs[:, c].flatten().to(torch.int64).bincount(minlength=256).cpu()
    share = counts / counts.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = share @ values
    std = (share * (values - mean[:, None]).square()).sum(1).sqrt()
    return mean.tolist(), std.tolist()


def moments(examples: Examples, as_input: AsInput) -> tuple[list[float], list[float]]:
    """Likewise of as_input(image), whatever it gives: sums in float64 of what each channel differs from one value."""
    value, sums, num = None, torch.zeros(2, 1, dtype=torch.float64), 0
    for chunk in examples.chunks(CHUNK):
        x = as_input(chunk.inputs).to("cpu", torch.float64)
        value = x[:1, :, :1, :1] if value is None else value
        away = x - value
        sums = sums + torch.stack([away.sum((0, 2, 3)), away.square().sum((0, 2, 3))])
        num += away[:, 0].numel()
    assert value is not None, "a task has examples"
    mean, square = sums / num
    return (value.flatten() + mean).tolist(), (square - mean.square()).clamp(min=0).sqrt().tolist()
