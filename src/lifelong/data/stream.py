"""A stream: T tasks made of one source or several, and which output columns are visible when.

Legend: G base tasks, those in the window visited `cycles` times each (T = G · cycles tasks without a window); K output
columns (width of the shared head), C_j classes of base task j.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from lifelong.data.examples import Examples, Lazy
from lifelong.data.order import ORDER, as_order, plain_names, visits, windowed
from lifelong.data.seeds import derived_generator
from lifelong.data.source import Source, check_images, stratified_split

MAX_TASKS = 10_000
"""A run keeps a T × T matrix of accuracies."""
SCENARIOS = ("domain", "task", "class")
KEPT_BYTES = 2**28
"""Bound on the validation and test sets kept: making them anew takes half of an evaluation when they are rotated."""


@dataclass(frozen=True)
class Task:
    """One task. Its examples are made when first asked for.

    Attributes:
        index: position in the stream.
        classes: output columns its labels use.
        base: which of the base tasks it is a visit to; visits of one share data and columns.
    """

    index: int
    name: str
    classes: tuple[int, ...]
    base: int
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


class TaskStream:
    """`task(i)` is pure: the same i gives the same data, in any order, in any process.

    A subclass says which examples of a source belong to a task (`chosen`) and what becomes of their inputs (`changed`).
    Not a LightningDataModule: that carries a Trainer's state, and here every task has its own Trainer.

    Args:
        sources: one for all base tasks, or one for each; all of one type and with one `as_input`.
        num_classes_per_task: C_j.
        base_names: of the base tasks.
        input_shape: of what `changed` makes, (C, H, W) of images; None: that of the source.
        scenario: "domain" all tasks share the columns 0..max C_j − 1; "task" every task has columns of its own and is
            told at test time; "class" every task has columns of its own and is not.
        val_fraction: share of a source's training examples, in [0, 1), that goes to validation.
        order: "given" (or None), "reversed", "shuffle" (drawn by `seed`), "shuffle:7" (drawn by 7), or a list: task i
            of the stream is the base task order[i]. Columns do not depend on it.
        window: [first, stop]: of the ordered tasks only those first..stop − 1 are learned and tested, on the data and
            columns they have in the whole stream; None: all.
        cycles: how often the whole sequence is gone through.
        seed: of the split into training and validation, and of what a subclass draws.
        resident_bytes: a part of a task with larger images is not made in memory, but batch by batch.

    Raises:
        ValueError: a setting outside what is allowed, sources that do not go together, or a task without an example to
            train or to test on.
    """

    def __init__(
        self,
        sources: Source | Sequence[Source],
        num_classes_per_task: Sequence[int],
        base_names: Sequence[str],
        *,
        input_shape: tuple[int, ...] | None = None,
        scenario: str = "domain",
        val_fraction: float = 0.1,
        order: Sequence[int] | str | None = None,
        window: Sequence[int] | None = None,
        cycles: int = 1,
        seed: int = 0,
        resident_bytes: float = math.inf,
    ) -> None:
        if scenario not in SCENARIOS:
            raise ValueError(f"scenario must be one of {', '.join(SCENARIOS)}, got {scenario!r}")
        if not isinstance(val_fraction, int | float) or not 0 <= val_fraction < 1:
            raise ValueError(f"val_fraction must be a number in [0, 1), got {val_fraction!r}")
        if type(cycles) is not int or cycles < 1:
            raise ValueError(f"dataset.cycles must be an integer >= 1, got {cycles!r}")
        self.sources = (sources,) if isinstance(sources, Source) else tuple(sources)
        self.order = windowed(as_order(order, len(base_names), seed, "dataset.order", ORDER), window)
        """Base tasks in the order of a cycle."""
        if len(self.order) * cycles > MAX_TASKS:
            raise ValueError(
                f"dataset.cycles must make at most {MAX_TASKS} tasks, got {cycles} times {len(self.order)} tasks"
            )
        self.scenario, self.cycles, self.seed, self.resident_bytes = scenario, cycles, seed, resident_bytes
        self.num_tasks = len(self.order) * cycles
        base_names = plain_names(base_names)
        self.names = visits([base_names[j] for j in self.order], cycles)
        self.input_shape = self.sources[0].train.shape if input_shape is None else input_shape
        self.as_input = self.sources[0].as_input
        if any(source.as_input != self.as_input for source in self.sources):
            raise ValueError("dataset.sources must share one as_input: a run has one network, got several")
        sizes = torch.tensor(num_classes_per_task)
        self._sizes: list[int] = sizes.tolist()
        self._offsets: list[int] = [0] * len(sizes) if scenario == "domain" else (sizes.cumsum(0) - sizes).tolist()
        self.num_classes = int(sizes.max() if scenario == "domain" else sizes.sum())
        self._rows = [rows_of_parts(source, val_fraction, seed) for source in self.sources]
        self._kept: dict[tuple[int, str], Examples] = {}
        for base, name in enumerate(base_names):
            self._check_not_empty(base, name)

    def check_images(self, key: str) -> None:
        """Raises ValueError, naming `key`, unless the sources hold images."""
        for source in self.sources:
            check_images(key, source)

    def chosen(self, base: int, labels: Tensor) -> tuple[Tensor | None, Tensor]:
        """Of source labels (N,): positions (M,) of those that belong to the base task, None for all of them, and their
        labels (M,) in the task, 0..C_j − 1."""
        return None, labels

    def changed(self, base: int, inputs: Tensor) -> Tensor:
        """What the base task makes of the source's inputs (M, ...), each by itself."""
        return inputs

    def task(self, i: int) -> Task:
        """Raises IndexError outside 0..T − 1."""
        base = self._base(i)
        return Task(i, self.names[i], self._columns(i), base, partial(self._part, base))

    def _base(self, i: int) -> int:
        if not 0 <= i < self.num_tasks:
            raise IndexError(f"task index must be in 0..{self.num_tasks - 1}, got {i}")
        return self.order[i % len(self.order)]

    def _part(self, base: int, part: str) -> Examples:
        """Validation and test sets are kept while there is room. Evaluation goes round all of them after each task, so
        that to evict the one longest unused would be to evict the one needed next."""
        if (base, part) in self._kept:
            return self._kept[base, part]
        examples = self._make(base, part)
        copied = not examples.lazy and examples.stored is not self._own(base, part).stored
        room = KEPT_BYTES - sum(kept.nbytes for kept in self._kept.values())
        if part != "train" and copied and examples.nbytes <= room:
            self._kept[base, part] = examples
        return examples

    def _make(self, base: int, part: str) -> Examples:
        own = self._own(base, part).inputs
        rows, labels = self._select(base, part)

        def make(index: Tensor) -> Tensor:
            return self.changed(base, own.index_select(0, index if rows is None else rows[index]))

        labels = labels + self._offsets[base]
        examples = Examples(Lazy(make, torch.Size([len(labels), *self.input_shape]), own.dtype), labels)
        if examples.nbytes > self.resident_bytes:
            return examples
        return Examples(self.changed(base, own if rows is None else own.index_select(0, rows)), labels)

    def _select(self, base: int, part: str) -> tuple[Tensor | None, Tensor]:
        """Rows of the source that make up a part of the task, None for all of them, and their labels 0..C_j − 1."""
        rows, labels = self._rows[self._index(base)][part], self._own(base, part).labels
        positions, labels = self.chosen(base, labels if rows is None else labels[rows])
        if rows is None or positions is None:
            return (rows if positions is None else positions), labels
        return rows[positions], labels

    def _own(self, base: int, part: str) -> Examples:
        """The part of the source that a part of the task is taken from."""
        source = self.sources[self._index(base)]
        return source.test if part == "test" else source.train

    def _index(self, base: int) -> int:
        return base if len(self.sources) > 1 else 0

    def _check_not_empty(self, base: int, name: str) -> None:
        for part in ("train", "test"):
            if len(self._select(base, part)[1]) == 0:
                raise ValueError(f"dataset must give every task examples to {part} on, got none for {name}")

    def _columns(self, i: int) -> tuple[int, ...]:
        base = self._base(i)
        return tuple(range(self._offsets[base], self._offsets[base] + self._sizes[base]))

    def visible(self, learned: int, task: int) -> tuple[int, ...]:
        """Columns visible when `task` is trained on or tested after tasks 0..learned; −1: at random initialisation.

        class-incremental: all columns seen so far, and all K at random initialisation.
        """
        if self.scenario == "task":
            return self._columns(task)
        if self.scenario == "domain" or learned < 0:
            return tuple(range(self.num_classes))
        return tuple(sorted({c for i in range(learned + 1) for c in self._columns(i)}))

    def groups(self) -> Tensor | None:
        """(K,) the base task that owns each column, in task-incremental learning; else None."""
        if self.scenario != "task":
            return None
        return torch.arange(len(self._sizes)).repeat_interleave(torch.tensor(self._sizes))


def rows_of_parts(source: Source, val_fraction: float, seed: int) -> dict[str, Tensor | None]:
    """Rows of the source's own train and test part that make up "train", "val" and "test"; None: all.

    Raises:
        ValueError: validation would leave some class without a training example.
    """
    labels = source.train.labels
    train, val = stratified_split(labels, val_fraction, derived_generator(seed, 0))
    if len(labels[train].unique()) < len(labels.unique()):
        raise ValueError(f"val_fraction must leave every class a training example, got {val_fraction!r}")
    return {"train": train if len(val) else None, "val": val, "test": None}
