"""What methods share that draw from memory themselves."""

import torch
from lightning.pytorch import LightningModule, Trainer

from lifelong.data.loader import Batch
from lifelong.distributed.ranks import this_share
from lifelong.methods.method import Method


class Replay(Method):
    """A method over memory. A batch drawn from it is a function of (seed, task, epoch, batch)."""

    needs_memory = True
    replays = True

    @property
    def active(self) -> bool:
        return bool(self.memory.cells)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if held := self.memory.examples:
            self._held = held.to(pl_module.device)
        super().on_train_start(trainer, pl_module)

    def replayed(self, num: int, *purpose: int) -> Batch:
        """This rank's shard of `num` exemplars drawn without replacement, or of all if they are fewer; as input, and
        augmented like a training batch."""
        held, generator, share = self._held, self.generator(*purpose), this_share()
        order = torch.randperm(len(held), generator=generator)[:num]
        draws = torch.rand(len(order), self.augment.num_draws, generator=generator) if self.augment else None
        rows = share.rows(0, len(order)) if share.count(len(order)) else slice(0, 1)
        device = held.labels.device
        x, labels = held.inputs[order[rows].to(device)], held.labels[order[rows].to(device)]
        if self.augment and draws is not None:
            x = self.augment(x, draws[rows].to(device))
        return Batch(self.learner.as_input(x), labels, share.weight(len(order)))
