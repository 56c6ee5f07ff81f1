"""A labelled set with its train and test part."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.data.examples import Examples, as_input
from lifelong.data.seeds import derived_generator

TEST_FRACTION = 0.2
"""Of data without a test part of its own, unless said otherwise."""


@dataclass(frozen=True)
class Source:
    """What a stream makes tasks of. Labels are 0..len(classes) − 1.

    as_input: stored values (B, ...) → what a backbone takes, on the same device.

    Raises:
        ValueError: labels out of range, an empty part, or parts whose inputs differ in shape or type.
    """

    name: str
    train: Examples
    test: Examples
    classes: tuple[str, ...]
    as_input: Callable[[Tensor], Tensor] = as_input

    def __post_init__(self) -> None:
        for part, examples in (("train", self.train), ("test", self.test)):
            if len(examples) == 0:
                raise ValueError(f"dataset.source {self.name}: the {part} part must hold examples, got none")
            low, high = (int(v) for v in torch.aminmax(examples.labels))
            if low < 0 or high >= len(self.classes):
                allowed = ">= 0" if low < 0 else f"0..{len(self.classes) - 1}"
                raise ValueError(f"dataset.source {self.name}: {part} labels must be {allowed}, got {low}..{high}")
        kinds = [f"{e.stored.dtype} {e.shape}" for e in (self.train, self.test)]
        if kinds[0] != kinds[1]:
            raise ValueError(
                f"dataset.source {self.name}: train and test part must be of one type and shape, "
                f"got {kinds[0]} and {kinds[1]}"
            )


def check_images(key: str, source: Source) -> None:
    """Raises ValueError, naming `key`, unless the source holds images: uint8 (C, H, W) each."""
    dtype, shape = source.train.stored.dtype, source.train.shape
    if dtype != torch.uint8 or len(shape) != 3:
        kind = str(dtype).removeprefix("torch.")
        raise ValueError(f"{key} takes images alone, uint8 (C, H, W), got {kind} {shape} of source {source.name}")


def stratified_split(labels: Tensor, fraction: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Positions (kept, held out), each sorted: from every class round(fraction · its size) are held out at random."""
    held = []
    for label in labels.unique().tolist():
        positions = (labels == label).nonzero().flatten()
        order = torch.randperm(len(positions), generator=generator)
        held.append(positions[order[: round(fraction * len(positions))]])
    mask = torch.zeros(len(labels), dtype=torch.bool)
    mask[torch.cat(held)] = True
    return (~mask).nonzero().flatten(), mask.nonzero().flatten()


def with_test_part(name: str, examples: Examples, classes: Sequence[str], test_fraction: float) -> Source:
    """A source without a test part of its own gets one, stratified and the same for every seed of a run.

    Raises:
        ValueError: test_fraction outside (0, 1), or one that leaves a part without examples.
    """
    train, test = train_and_test(examples.labels, test_fraction)
    return Source(name, examples.subset(train), examples.subset(test), tuple(classes))


def train_and_test(labels: Tensor, test_fraction: float) -> tuple[Tensor, Tensor]:
    """Positions (train, test), each sorted: what `with_test_part` takes, for inputs that are not in memory.

    Raises:
        ValueError: test_fraction outside (0, 1), or one that leaves a part without examples.
    """
    if not isinstance(test_fraction, int | float) or not 0 < test_fraction < 1:
        raise ValueError(f"dataset.source.test_fraction must be a number in (0, 1), got {test_fraction!r}")
    train, test = stratified_split(labels, test_fraction, derived_generator(0))
    if len(train) == 0 or len(test) == 0:
        raise ValueError(
            f"dataset.source.test_fraction must leave both parts examples of {len(labels)}, got {test_fraction!r}"
        )
    return train, test


def fraction_held_out(test_fraction: float | None, has_test_part: bool, reason: str) -> float:
    """`test_fraction`, or a fifth if it is None; it has no say, and must be None, where the data have a test part.

    reason: why they have one, for the message.

    Raises:
        ValueError: a fraction although there is a test part.
    """
    if has_test_part and test_fraction is not None:
        raise ValueError(f"dataset.source.test_fraction must be null {reason}, got {test_fraction!r}")
    return TEST_FRACTION if test_fraction is None else test_fraction
