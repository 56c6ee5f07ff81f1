"""Accuracy within tasks, not at their ends alone (continual evaluation: De Lange et al. 2023, 2205.13452)."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from lifelong.data.examples import Examples
from lifelong.data.seeds import derived_generator
from lifelong.data.stream import Task, TaskStream
from lifelong.tracking.history import Row

WITHIN = "within/"
SUBSET = 3
"""Keeps the draws of subsets apart from the other draws of a seed and a task."""


class Subsets:
    """A fixed subset of each task's validation data; of its test data, if some task has no validation data.

    It is a function of (seed, base task) alone: the same in a resumed run, and in all visits to a task.

    Args:
        every_n_steps: optimiser steps of a task between evaluations.
        num_samples: size of a subset; of a task with fewer samples, all.
    """

    def __init__(self, stream: TaskStream, every_n_steps: int, num_samples: int, seed: int) -> None:
        self.every_n_steps, self.num_samples, self.seed = every_n_steps, num_samples, seed
        self.part = part_tested(stream)
        self._kept: dict[int, Examples] = {}

    def of(self, task: Task, device: torch.device) -> Examples:
        """The subset of a task; it lies on the device from the first call on."""
        if task.base not in self._kept:
            examples: Examples = getattr(task, self.part)
            generator = derived_generator(self.seed, task.base, SUBSET)
            chosen = torch.randperm(len(examples), generator=generator)[: self.num_samples]
            self._kept[task.base] = examples.subset(chosen.to(examples.labels.device)).to(device)
        return self._kept[task.base]


def part_tested(stream: TaskStream) -> str:
    """Which part of a task's data is evaluated within tasks: "val" if every task has such data, else "test"."""
    return "val" if all(len(stream.task(i).val) for i in range(len(stream.order))) else "test"


def evaluations(rows: Iterable[Row], names: Sequence[str]) -> tuple[Tensor, Tensor, list[int]]:
    """R (E, T) float64, tasks (E,) and steps, as `lifelong.metrics` takes them, from the rows of a history.

    R: accuracies in [0, 1], nan on tasks not seen yet; tasks: the one being learned. Of two evaluations after the same
    step of a task the last one counts: that at a task's end, when the method has kept what it keeps.
    """
    found = {(row["step"], row["task"]): row for row in rows if any(key.startswith(WITHIN) for key in row)}
    R = [[row.get(WITHIN + name, torch.nan) for name in names] for row in found.values()]
    steps, tasks = [step for step, _ in found], [task for _, task in found]
    return torch.tensor(R, dtype=torch.float64).view(len(R), len(names)), torch.tensor(tasks), steps
