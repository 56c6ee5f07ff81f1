"""A source split by classes (split MNIST: Zenke et al. 2017; scenarios: van de Ven & Tolias 2019, arXiv 1904.07734)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lifelong.data.order import as_permutation
from lifelong.data.source import Source
from lifelong.data.stream import TaskStream


class Split(TaskStream):
    """Task j holds the classes class_order[j·c : (j + 1)·c], c = classes_per_task, labelled 0..c − 1 in that order.

    Raises:
        ValueError: classes that do not divide evenly, or an order that is not a permutation of the classes.
    """

    def __init__(
        self, source: Source, classes_per_task: int = 2, class_order: Sequence[int] | None = None, **stream: Any
    ) -> None:
        num = len(source.classes)
        if type(classes_per_task) is not int or classes_per_task < 1 or num % classes_per_task:
            raise ValueError(f"dataset.classes_per_task must be a divisor of {num} classes, got {classes_per_task!r}")
        order = as_permutation(class_order, num, "dataset.class_order")
        self.class_groups = [order[j : j + classes_per_task] for j in range(0, num, classes_per_task)]
        names = ["-".join(source.classes[c] for c in group) for group in self.class_groups]
        super().__init__(source, [classes_per_task] * len(names), names, **stream)

    def chosen(self, given: int, labels: Tensor) -> tuple[Tensor | None, Tensor]:
        local = torch.full((sum(map(len, self.class_groups)),), -1)
        local[self.class_groups[given]] = torch.arange(len(self.class_groups[given]))
        in_task = local[labels]
        positions = (in_task >= 0).nonzero().flatten()
        return positions, in_task[positions]
