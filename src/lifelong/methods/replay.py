"""What methods share that draw from memory themselves."""

from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lifelong.data.stream import TaskStream
from lifelong.distributed.ranks import mean_over_ranks_, this_shard
from lifelong.methods.guards import check_number
from lifelong.methods.method import Method


class Replayed(NamedTuple):
    """A `Batch` of exemplars, and their logits z (B, K) of when they were chosen, where memory keeps them."""

    x: Tensor
    y: Tensor
    weight: float
    z: Tensor | None


class Replay(Method):
    """A method over memory. A batch drawn from it is a function of (seed, task, epoch, batch).

    Args:
        batch_size: exemplars of a draw; None: as many as a training batch has samples.
    """

    needs_memory = True
    replays = True
    needs_logits = False
    past_only = False
    """Whether exemplars of the task in work are left out; only a memory that is offered samples has any."""

    def __init__(self, batch_size: int | None = None) -> None:
        if batch_size is not None:
            check_number("batch_size", batch_size, low=1, whole=True)
        self.batch_size = batch_size

    def check(self, stream: TaskStream, backbone: nn.Module) -> None:
        super().check(stream, backbone)
        if self.needs_logits and not self.memory.keeps_logits:
            name, memory = type(self).__name__, type(self.memory).__name__.lower()
            raise ValueError(f"memory must be reservoir with {name}, which needs stored logits, got memory={memory}")

    @property
    def active(self) -> bool:
        return len(self.rows()) > 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._device = pl_module.device
        self._exemplars = self.memory.exemplars(self._device)
        self._num = self.batch_size or trainer.train_dataloader.batch_size  # type: ignore[union-attr]

    def rows(self) -> np.ndarray:
        """Positions (N,) of the exemplars that may be drawn."""
        tasks = self.memory.tasks
        if self.past_only and self.memory.offered and self.task is not None:
            return np.flatnonzero(tasks != self.task.index)
        return np.arange(len(tasks))

    def replayed(self, *purpose: int, rows: np.ndarray | None = None) -> Replayed:
        """This rank's shard of `batch_size` exemplars drawn without replacement, or of all if they are fewer; as input,
        and augmented like a training batch.

        purpose: keeps draws of one batch apart; rows: the positions to draw from; None: `rows()`.
        """
        held = self.memory.exemplars(self._device) if self.memory.offered else self._exemplars
        rows, generator, shard = self.rows() if rows is None else rows, self.generator(*purpose), this_shard()
        order = torch.from_numpy(rows)[torch.randperm(len(rows), generator=generator)[: self._num]]
        draws = torch.rand(len(order), self.augment.num_draws, generator=generator) if self.augment else None
        mine = shard.rows(0, len(order)) if shard.count(len(order)) else slice(0, 1)
        assert held is not None
        index = order[mine].to(self._device)
        x, labels = held.examples.inputs[index], held.examples.labels[index]
        if self.augment and draws is not None:
            x = self.augment(x, draws[mine].to(self._device))
        z = None if held.logits is None else held.logits[index]
        return Replayed(self.learner.as_input(x), labels, shard.weight(len(order)), z)

    def replayed_loss(self, batch: Replayed) -> Tensor:
        """The task loss of exemplars, times the weight of the shard."""
        return batch.weight * self.learner.task_loss(self.learner.logits(batch.x), batch.y)

    def reference(self, batch: Replayed) -> list[Tensor]:
        """The gradient of `replayed_loss`, one tensor a parameter, the same on every rank.

        The batch is run as in training (dropout, batch norm's statistics of the batch).
        """
        params = list(self._params.values())
        with torch.enable_grad():
            loss = self.replayed_loss(batch)
            found = torch.autograd.grad(loss, params, allow_unused=True, materialize_grads=True)
        mean_over_ranks_(found)
        return list(found)
