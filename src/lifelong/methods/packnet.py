"""PackNet: Adding multiple tasks to a single network by iterative pruning (Mallya & Lazebnik 2018, 1711.05769)."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lifelong.data.stream import Task, TaskStream
from lifelong.methods.guards import check_number
from lifelong.methods.isolation import Freezing
from lifelong.methods.method import Batches, Params


class PackNet(Freezing):
    """A task keeps the largest of each layer's free weights for good; the next tasks see them, and train the others.

    Biases and norms are trained by the first task alone. What is kept is chosen by magnitude before the last `retrain`
    share of a task's steps (at its end, if it is stopped before); the rest is set to 0 and free for later tasks.

    Args:
        keep: share of a layer's free weights that a task keeps.
        retrain: share of a task's steps that only the kept weights are trained in.
    """

    revisits = False
    state = ("owner", "num_packed")

    owner: Params
    """By layer, int16: number of the task that keeps a weight, from 1; 0: free."""

    def __init__(self, keep: float = 0.25, retrain: float = 0.5) -> None:
        check_number("keep", keep, low=0, high=1, above=True)
        check_number("retrain", retrain, low=0, high=1)
        self.keep, self.retrain = keep, retrain
        self.owner, self.num_packed = {}, 0
        self._whole = Params()

    def check(self, stream: TaskStream, backbone: nn.Module) -> None:
        super().check(stream, backbone)
        for name, weight in self.layers(backbone).items():
            kept = [self.num_kept(weight.numel(), index) for index in range(stream.num_tasks)]
            if 0 in kept:
                raise ValueError(
                    f"method.keep must leave each of {stream.num_tasks} tasks some of the {weight.numel()} weights "
                    f"of {name}, got {self.keep}, by which task {kept.index(0) + 1} has none"
                )

    def num_kept(self, num_weights: int, index: int) -> int:
        """How many weights of a layer the task at this position keeps."""
        free = num_weights
        for _ in range(index):
            free -= round(self.keep * free)
        return round(self.keep * free)

    def layers(self, backbone: nn.Module) -> Params:
        """The weights that tasks share: all but the head, biases and norms."""
        return {n: p for n, p in self.penalised(backbone).items() if p.ndim > 1 and not n.startswith("head.")}

    def before_task(self, task: Task) -> None:
        if not self.owner:
            layers = self.layers(self.learner.backbone).items()
            self.owner = {n: torch.zeros(p.shape, dtype=torch.int16, device=p.device) for n, p in layers}

    def plastic(self) -> Params:
        index = self.task.index if self.task else 0
        first = torch.tensor(index == 0, device=self.learner.visible.device)
        owner = index + 1 if self.num_packed > index else 0
        return {n: self.owner[n] == owner if n in self.owner else first for n in self._params}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        first = self.learner.num_steps - round(self.retrain * self.learner.num_steps)
        if self.task and self.num_packed == self.task.index and trainer.global_step >= first:
            self.pack(self.task)
            self.hold()

    def after_task(self, task: Task, batches: Batches) -> None:
        if self.num_packed == task.index:
            self.pack(task)

    @torch.no_grad()
    def pack(self, task: Task) -> None:
        """Give the task its share of each layer's free weights, and set the others to 0."""
        for name, weight in self.layers(self.learner.backbone).items():
            owner = self.owner[name].view(-1)
            sizes = weight.flatten().abs().masked_fill(owner != 0, -1)
            largest = sizes.argsort(descending=True, stable=True)[: self.num_kept(len(owner), task.index)]
            owner[largest] = task.index + 1
            weight.masked_fill_(self.owner[name] == 0, 0)
        self.num_packed = task.index + 1

    @torch.no_grad()
    def enter(self, task: Task | None) -> None:
        """Leave only the weights that were there when the task was learned; all, before that."""
        params: dict[str, Tensor] = dict(self.learner.backbone.named_parameters())
        for name, weight in self._whole.items():
            params[name].copy_(weight)
        left = task is not None and task.index < self.num_packed
        self._whole = {n: params[n].clone() for n in self.owner} if left else {}
        for name in self._whole:
            later = self.owner[name] > task.index + 1  # type: ignore[union-attr]
            params[name].masked_fill_(later | (self.owner[name] == 0), 0)
