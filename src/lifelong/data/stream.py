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
from torch.nn import functional as F

from lifelong.data.examples import Examples, Lazy
from lifelong.data.order import ORDER, as_order, plain_names, windowed
from lifelong.data.seeds import derived_generator
from lifelong.data.source import Source, check_images, stratified_split

MAX_TASKS = 10_000
"""A run keeps a T × T matrix of accuracies."""
SCENARIOS = ("domain", "task", "class")
ACTIVE_CLASSES = ("seen", "all")
KEPT_BYTES = 2**28
"""Bound on the validation and test sets kept: making them anew takes half of an evaluation when they are rotated."""


@dataclass(frozen=True)
class Task:
    """One task; its examples are made when first asked for.

    index: position in the stream. classes: output columns its labels use. base: which of the base tasks it is a visit
    to; visits of one share data and columns.
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
        num_classes_per_task, base_names: C_j and name of each base task.
        input_shape: of what `changed` makes, (C, H, W) of images; None: that of the padded source.
        scenario: "domain" all tasks share the columns 0..max C_j − 1; "task" every task has columns of its own and is
            told at test time; "class" every task has columns of its own and is not.
        active_classes: the columns that compete in class-incremental learning: "seen" those of the tasks so far, "all"
            all K from the first task on (van de Ven et al. 2022).
        pad: pixels of zeros put on each side of the source's images, before anything else is done to them.
        val_fraction: share of a source's training examples, in [0, 1), that goes to validation.
        order: see `as_order`: task i of the stream is the base task order[i]. Columns do not depend on it.
        window: [first, stop]: of the ordered tasks only those first..stop − 1 are learned and tested, on the data and
            columns they have in the whole stream; None: all.
        cycles: how often the whole sequence is gone through; a later visit has "_cycle2" or so in its name.
        seed: of the split into training and validation, and of what a subclass draws.
        resident_bytes: a part of a task with larger inputs is not made in memory, but batch by batch.

    Raises:
        ValueError: a setting not allowed, sources that do not go together, a task with nothing to train or test on.
    """

    def __init__(
        self,
        sources: Source | Sequence[Source],
        num_classes_per_task: Sequence[int],
        base_names: Sequence[str],
        *,
        input_shape: tuple[int, ...] | None = None,
        scenario: str = "domain",
        active_classes: str = "seen",
        pad: int = 0,
        val_fraction: float = 0.1,
        order: Sequence[int] | str | None = None,
        window: Sequence[int] | None = None,
        cycles: int = 1,
        seed: int = 0,
        resident_bytes: float = math.inf,
    ) -> None:
        check_scenario(scenario, active_classes)
        if not isinstance(val_fraction, int | float) or not 0 <= val_fraction < 1:
            raise ValueError(f"val_fraction must be a number in [0, 1), got {val_fraction!r}")
        for key, value, low in (("cycles", cycles, 1), ("pad", pad, 0)):
            if type(value) is not int or value < low:
                raise ValueError(f"dataset.{key} must be an integer >= {low}, got {value!r}")
        self.sources = (sources,) if isinstance(sources, Source) else tuple(sources)
        self.active_classes, self.pad = active_classes, pad
        if pad:
            self.check_images("dataset.pad")
        self.order = windowed(as_order(order, len(base_names), seed, "dataset.order", ORDER), window)
        """Base tasks in the order of a cycle."""
        self.num_tasks = len(self.order) * cycles
        if self.num_tasks > MAX_TASKS:
            got = f"{cycles} times {len(self.order)} tasks"
            raise ValueError(f"dataset.cycles must make at most {MAX_TASKS} tasks, got {got}")
        self.scenario, self.cycles, self.seed, self.resident_bytes = scenario, cycles, seed, resident_bytes
        base_names = plain_names(base_names)
        cycle_names = ["", *(f"_cycle{c}" for c in range(2, cycles + 1))]
        self.names = [base_names[j] + suffix for suffix in cycle_names for j in self.order]
        self.input_shape = padded_shape(self.sources[0].train.shape, pad) if input_shape is None else input_shape
        self.as_input = self.sources[0].as_input
        if any(source.as_input != self.as_input for source in self.sources):
            raise ValueError("dataset.sources must share one as_input: a run has one network, got several")
        self.sizes = list(num_classes_per_task)
        self._offsets = [0 if scenario == "domain" else sum(self.sizes[:j]) for j in range(len(self.sizes))]
        self.num_classes = max(map(sum, zip(self._offsets, self.sizes, strict=True)))
        self._rows = [rows_of_parts(source, val_fraction, seed) for source in self.sources]
        self._kept: dict[tuple[int, str], Examples] = {}
        self.num_train = self._sizes_of_parts(base_names)
        """Training examples of each base task."""

    def _sizes_of_parts(self, base_names: Sequence[str]) -> list[int]:
        """Training examples of each base task; raises ValueError for a task with none to train or test on."""
        sizes = [[len(self._select(j, part)[1]) for part in ("train", "test")] for j in range(len(base_names))]
        for name, counts in zip(base_names, sizes, strict=True):
            if 0 in counts:
                part = ("train", "test")[counts.index(0)]
                raise ValueError(f"dataset must give every task examples to {part} on, got none for {name}")
        return [num_train for num_train, _ in sizes]

    def check_images(self, key: str) -> None:
        """Raises ValueError, naming `key`, unless the sources hold images."""
        for source in self.sources:
            check_images(key, source)

    def chosen(self, base: int, labels: Tensor) -> tuple[Tensor | None, Tensor]:
        """Of source labels (N,): positions (M,) of those that belong to the base task, None for all of them, and their
        labels (M,) in the task, 0..C_j − 1."""
        return None, labels

    def changed(self, base: int, inputs: Tensor) -> Tensor:
        """What the base task makes of the source's padded inputs (M, ...), each by itself."""
        return inputs

    def _changed(self, base: int, inputs: Tensor) -> Tensor:
        return self.changed(base, F.pad(inputs, [self.pad] * 4) if self.pad else inputs)

    def task(self, i: int) -> Task:
        """Raises IndexError outside 0..T − 1."""
        if not 0 <= i < self.num_tasks:
            raise IndexError(f"task index must be in 0..{self.num_tasks - 1}, got {i}")
        base = self.order[i % len(self.order)]
        classes = tuple(range(self._offsets[base], self._offsets[base] + self.sizes[base]))
        return Task(i, self.names[i], classes, base, partial(self._part, base))

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
            return self._changed(base, own.index_select(0, index if rows is None else rows[index]))

        labels = labels + self._offsets[base]
        examples = Examples(Lazy(make, torch.Size([len(labels), *self.input_shape]), own.dtype), labels)
        if examples.nbytes > self.resident_bytes:
            return examples
        return Examples(self._changed(base, own if rows is None else own.index_select(0, rows)), labels)

    def _select(self, base: int, part: str) -> tuple[Tensor | None, Tensor]:
        """Rows of the source that make up a part of the task, None for all of them, and their labels 0..C_j − 1."""
        rows, labels = self._rows[base % len(self.sources)][part], self._own(base, part).labels
        positions, labels = self.chosen(base, labels if rows is None else labels[rows])
        if rows is None or positions is None:
            return (rows if positions is None else positions), labels
        return rows[positions], labels

    def source(self, base: int) -> Source:
        """What the base task is made of."""
        return self.sources[base % len(self.sources)]

    def _own(self, base: int, part: str) -> Examples:
        """The part of the source that a part of the task is taken from."""
        return self.source(base).test if part == "test" else self.source(base).train

    def visible(self, learned: int, task: int) -> tuple[int, ...]:
        """Columns visible when `task` is trained on or tested after tasks 0..learned; −1: at random initialisation.
        Class-incremental: all columns seen so far, and all K at random initialisation or if all classes are active."""
        if self.scenario == "task":
            return self.task(task).classes
        if self.scenario == "domain" or self.active_classes == "all" or learned < 0:
            return tuple(range(self.num_classes))
        return tuple(sorted({c for i in range(learned + 1) for c in self.task(i).classes}))

    def groups(self) -> Tensor | None:
        """(K,) the base task that owns each column, in task-incremental learning; else None."""
        if self.scenario != "task":
            return None
        return torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes))


def check_scenario(scenario: str, active_classes: str) -> None:
    """Raises ValueError unless both are known and go together."""
    if scenario not in SCENARIOS:
        raise ValueError(f"scenario must be one of {', '.join(SCENARIOS)}, got {scenario!r}")
    if active_classes not in ACTIVE_CLASSES:
        raise ValueError(f"active_classes must be one of {', '.join(ACTIVE_CLASSES)}, got {active_classes!r}")
    if active_classes == "all" and scenario != "class":
        raise ValueError(f"active_classes must be seen unless scenario=class, got all with scenario={scenario}")


def padded_shape(shape: tuple[int, ...], pad: int) -> tuple[int, ...]:
    """Of images (C, H, W) with `pad` pixels more on each side."""
    return (shape[0], *(side + 2 * pad for side in shape[1:])) if pad else shape


def rows_of_parts(source: Source, val_fraction: float, seed: int) -> dict[str, Tensor | None]:
    """Rows of the source's own parts that make up "train", "val" and "test", None: all; raises ValueError if
    validation would leave some class without a training example."""
    labels = source.train.labels
    train, val = stratified_split(labels, val_fraction, derived_generator(seed, 0))
    if len(labels[train].unique()) < len(labels.unique()):
        raise ValueError(f"val_fraction must leave every class a training example, got {val_fraction!r}")
    return {"train": train if len(val) else None, "val": val, "test": None}
