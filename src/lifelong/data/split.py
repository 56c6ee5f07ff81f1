"""A source split by classes (split MNIST: Zenke et al. 2017; scenarios: van de Ven & Tolias 2019, arXiv 1904.07734)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lifelong.data.order import CLASS_ORDER, as_order, is_integers
from lifelong.data.source import Source
from lifelong.data.stream import TaskStream


class Split(TaskStream):
    """Task j holds the next c_j classes of class_order, labelled 0..c_j − 1 in that order.

    Args:
        classes_per_task: c, the same for all tasks, or a list of c_j.
        class_order: as `order` of TaskStream, but of classes.

    Raises:
        ValueError: classes that are not all in some task, or an order that is not a permutation of the classes.
    """

    def __init__(
        self,
        source: Source,
        classes_per_task: int | Sequence[int] = 2,
        class_order: Sequence[int] | str | None = None,
        **stream: Any,
    ) -> None:
        sizes = as_sizes(classes_per_task, len(source.classes))
        order = as_order(class_order, len(source.classes), stream.get("seed", 0), "dataset.class_order", CLASS_ORDER)
        self.class_groups = [group.tolist() for group in torch.tensor(order).split(sizes)]
        names = ["-".join(source.classes[c] for c in group) for group in self.class_groups]
        super().__init__(source, sizes, names, **stream)

    def chosen(self, base: int, labels: Tensor) -> tuple[Tensor | None, Tensor]:
        local = torch.full((sum(map(len, self.class_groups)),), -1)
        local[self.class_groups[base]] = torch.arange(len(self.class_groups[base]))
        in_task = local[labels]
        positions = (in_task >= 0).nonzero().flatten()
        return positions, in_task[positions]


def as_sizes(classes_per_task: int | Sequence[int], num: int) -> list[int]:
    """c_j of every task; raises ValueError unless they are >= 1 and add up to `num` classes."""
    if is_integers(classes_per_task):
        sizes = list(classes_per_task)  # type: ignore[arg-type]
        if sizes and min(sizes) >= 1 and sum(sizes) == num:
            return sizes
    elif type(classes_per_task) is int and classes_per_task >= 1 and num % classes_per_task == 0:
        return [classes_per_task] * (num // classes_per_task)
    raise ValueError(
        f"dataset.classes_per_task must be a divisor of {num} classes or a list of integers >= 1 that add up to them, "
        f"got {classes_per_task!r}"
    )
