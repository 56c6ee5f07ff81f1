"""A labelled image set with its train and test part."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.data.examples import Examples
from lifelong.data.seeds import derived_generator


@dataclass(frozen=True)
class Source:
    """What a stream makes tasks of. Labels are 0..len(classes) − 1.

    Raises:
        ValueError: labels out of range, an empty part, or parts whose images differ in shape.
    """

    name: str
    train: Examples
    test: Examples
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        for part, examples in (("train", self.train), ("test", self.test)):
            if len(examples) == 0:
                raise ValueError(f"dataset.source {self.name}: the {part} part must hold examples, got none")
            low, high = (int(v) for v in torch.aminmax(examples.labels))
            if low < 0 or high >= len(self.classes):
                allowed = f"0..{len(self.classes) - 1}"
                raise ValueError(f"dataset.source {self.name}: {part} labels must be {allowed}, got {low}..{high}")
        shapes = [tuple(e.images.shape[1:]) for e in (self.train, self.test)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"dataset.source {self.name}: train and test images must be of one shape, got {shapes}")


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
        ValueError: test_fraction outside (0, 1).
    """
    if not isinstance(test_fraction, int | float) or not 0 < test_fraction < 1:
        raise ValueError(f"dataset.source.test_fraction must be a number in (0, 1), got {test_fraction!r}")
    train, test = stratified_split(examples.labels, test_fraction, derived_generator(0))
    return Source(name, examples.subset(train), examples.subset(test), tuple(classes))
