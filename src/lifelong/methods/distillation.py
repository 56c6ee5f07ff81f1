"""What methods share that learn from the network as it was before the task."""

import copy
from typing import ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer

from lifelong.data.stream import Task
from lifelong.methods.method import Batches, Method, Params


class Distillation(Method):
    """A method with a teacher: the network before the task, in eval mode and outside of the graph. Holds P."""

    state: ClassVar[tuple[str, ...]] = ("teacher", "seen")

    def __init__(self) -> None:
        self.teacher, self.seen = Params(), torch.tensor(False)  # (K,) the columns of earlier tasks

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self.teacher and self.active:
            self._network = copy.deepcopy(self.learner.backbone).requires_grad_(False).eval()
            self._network.load_state_dict(self.teacher)

    def after_task(self, task: Task, batches: Batches) -> None:
        self.teacher = {n: t.detach().clone() for n, t in self.learner.backbone.state_dict().items()}
        self.seen = self.seen.to(self.learner.visible.device) | self.learner.visible
