"""A stream: T tasks made of one source, and which output columns are visible when.

Legend: T tasks, K output columns (width of the shared head), C_j classes of task j.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lifelong.data.examples import Examples
from lifelong.data.seeds import derived_generator
from lifelong.data.source import Source, stratified_split

SCENARIOS = ("domain", "task", "class")


def as_permutation(value: Sequence[int] | None, num: int, key: str) -> list[int]:
    """`value` as a list; None is 0..num − 1. Raises ValueError, naming `key`, if it is no permutation of these."""
    if value is None:
        return list(range(num))
    integers = isinstance(value, Sequence) and all(type(v) is int for v in value)
    if not integers or sorted(value) != list(range(num)):
        raise ValueError(f"{key} must be a permutation of 0..{num - 1} or null, got {value!r}")
    return list(value)


@dataclass(frozen=True)
class Task:
    """One task. Its examples are made when first asked for.

    Attributes:
        index: position in the stream.
        classes: output columns its labels use.
    """

    index: int
    name: str
    classes: tuple[int, ...]
    make: Callable[[str], Examples]

    @cached_property
    def train(self) -> Examples:
        return self.make("train")

    @cached_property
    def val(self) -> Examples:
        return self.make("val")

    @cached_property
    def test(self) -> Examples:
        return self.make("test")


class TaskStream(ABC):
    """`task(i)` is pure: the same i gives the same data, in any order, in any process.

    Not a LightningDataModule: that carries a Trainer's state, and here every task has its own Trainer.

    Args:
        scenario: "domain" all tasks share the columns 0..max C_j − 1; "task" every task has columns of its own and is
            told at test time; "class" every task has columns of its own and is not.
        val_fraction: share of the source's training examples, in [0, 1), that goes to validation.
        order: task i of the stream is the given task order[i]; None: as given. Columns do not depend on it.
        seed: of the split into training and validation, and of what a subclass draws.

    Raises:
        ValueError: a setting outside what is allowed.
    """

    def __init__(
        self,
        source: Source,
        num_classes_per_task: Sequence[int],
        given_names: Sequence[str],
        *,
        scenario: str = "domain",
        val_fraction: float = 0.1,
        order: Sequence[int] | None = None,
        seed: int = 0,
    ) -> None:
        if scenario not in SCENARIOS:
            raise ValueError(f"scenario must be one of {', '.join(SCENARIOS)}, got {scenario!r}")
        if not isinstance(val_fraction, int | float) or not 0 <= val_fraction < 1:
            raise ValueError(f"val_fraction must be a number in [0, 1), got {val_fraction!r}")
        self.num_tasks = len(given_names)
        order = as_permutation(order, self.num_tasks, "dataset.order")
        self.source, self.scenario, self.order, self.seed = source, scenario, order, seed
        self.names = [given_names[j] for j in order]
        self.input_shape: tuple[int, int, int] = tuple(source.train.images.shape[1:])  # type: ignore[assignment]
        sizes = torch.tensor(num_classes_per_task)
        self._sizes: list[int] = sizes.tolist()
        self._offsets: list[int] = [0] * self.num_tasks if scenario == "domain" else (sizes.cumsum(0) - sizes).tolist()
        self.num_classes = int(sizes.max() if scenario == "domain" else sizes.sum())
        train, val = stratified_split(source.train.labels, val_fraction, derived_generator(seed, 0))
        if len(source.train.labels[train].unique()) < len(source.train.labels.unique()):
            raise ValueError(f"val_fraction must leave every class a training example, got {val_fraction!r}")
        self._parts = {"train": source.train.subset(train), "val": source.train.subset(val), "test": source.test}

    @abstractmethod
    def transformed(self, given: int, examples: Examples) -> Examples:
        """The part of the source that belongs to the given task, with images transformed and labels 0..C_j − 1."""

    def task(self, i: int) -> Task:
        """Raises IndexError outside 0..T − 1."""
        if not 0 <= i < self.num_tasks:
            raise IndexError(f"task index must be in 0..{self.num_tasks - 1}, got {i}")
        given = self.order[i]
        return Task(i, self.names[i], self._columns(i), lambda part: self._make(given, part))

    def _make(self, given: int, part: str) -> Examples:
        examples = self.transformed(given, self._parts[part])
        return Examples(examples.images, examples.labels + self._offsets[given])

    def _columns(self, i: int) -> tuple[int, ...]:
        given = self.order[i]
        return tuple(range(self._offsets[given], self._offsets[given] + self._sizes[given]))

    def visible(self, learned: int, task: int) -> tuple[int, ...]:
        """Columns visible when `task` is trained on or tested after tasks 0..learned; −1: at random initialisation.

        class-incremental: all columns seen so far, and all K at random initialisation.
        """
        if self.scenario == "task":
            return self._columns(task)
        if self.scenario == "domain" or learned < 0:
            return tuple(range(self.num_classes))
        return tuple(sorted(c for i in range(learned + 1) for c in self._columns(i)))

    def groups(self) -> Tensor | None:
        """(K,) the task that owns each column, in task-incremental learning; else None."""
        if self.scenario != "task":
            return None
        owners = torch.zeros(self.num_classes, dtype=torch.int64)
        for i in range(self.num_tasks):
            owners[list(self._columns(i))] = i
        return owners
