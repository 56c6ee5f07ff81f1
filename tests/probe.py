"""What happens at every optimiser step of a real Trainer."""

from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from lifelong.methods.penalty import Penalty
from tiny import Pair, Params, gradients_of


class Probe(Callback):
    """What happens at every optimiser step of a fit.

    Attributes:
        task, total, stepped: gradients before and after the penalty's turn, and as the optimiser gets them.
        weights: before each step, and at the end.
        batches: those that make up a step.
    """

    def __init__(self) -> None:
        self.task: list[Params] = []
        self.total: list[Params] = []
        self.stepped: list[Params] = []
        self.weights: list[Params] = []
        self.batches: list[list[Pair]] = [[]]

    def around(self, penalty: Penalty) -> list[Callback]:
        return [_Look(self, self.task), penalty, _Look(self, self.total, last=True)]


class _Look(Callback):
    def __init__(self, probe: Probe, seen: list[Params], last: bool = False) -> None:
        self.probe, self.seen, self.last = probe, seen, last

    @property
    def state_key(self) -> str:
        return f"look-{self.last}"

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if not self.last:
            return

        def stepped(*_: Any) -> None:
            self.probe.stepped.append(gradients_of(pl_module))
            self.probe.batches.append([])

        trainer.optimizers[0].register_step_post_hook(stepped)

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self.last:
            self.probe.batches[-1].append(batch.counted)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        self.seen.append(gradients_of(pl_module))
        if self.last:
            self.probe.weights.append(_backbone_weights(pl_module))

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        if self.last:
            self.probe.weights.append(_backbone_weights(pl_module))


def _backbone_weights(learner: Any) -> Params:
    return {n: p.detach().clone() for n, p in learner.backbone.named_parameters()}


class Overflow(Callback):
    """One weight's gradient overflows in these batches of a fit, as it does in float16 under too large a scale."""

    def __init__(self, *batches: int) -> None:
        self.batches, self.made = batches, 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        trainer.optimizers[0].register_step_post_hook(self._step_made)

    def _step_made(self, *_: Any) -> None:
        self.made += 1

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.now = batch_idx in self.batches

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        if self.now:
            next(pl_module.parameters()).grad[0, 0] = torch.inf
