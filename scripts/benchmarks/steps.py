"""A learner driven step by step by the hooks a Trainer calls, in its order, without a Trainer around them."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from lifelong.config.build import build, factory
from lifelong.config.schema import compose
from lifelong.data.examples import Examples
from lifelong.experiment.run import make_learner
from lifelong.methods.penalty import Penalty
from lifelong.models.learner import Learner
from lifelong.training.loop import importance_batches

BATCH_SIZE = 128


class Driver:
    """A learner with a penalty that learns tasks of the same random batches.

    `num_samples` of a task are what its importance is computed on.
    """

    def __init__(self, method: str, widths: Sequence[int], num_samples: int) -> None:
        config = compose([f"method={method}", f"backbone.widths={list(widths)}", "optimizer.lr=1e-3"])
        torch.manual_seed(0)
        self.learner: Learner = make_learner(config, (1, 28, 28), 10, None)
        self.make_optimizer = partial(factory(config.optimizer, "optimizer"))
        self.penalty: Penalty = build(config.method, "method")
        images = torch.randint(0, 256, (num_samples, 1, 28, 28), dtype=torch.uint8)
        self.examples = Examples(images, torch.randint(10, (num_samples,)))
        self.trainer: Any = SimpleNamespace(global_step=0, optimizers=[])
        self.batches: Iterator[tuple[Tensor, Tensor]] = cycle(
            [(torch.rand(BATCH_SIZE, 1, 28, 28), torch.randint(10, (BATCH_SIZE,))) for _ in range(8)]
        )

    def start(self) -> None:
        """A task begins, with an optimiser of its own."""
        self.trainer.optimizers = [self.make_optimizer(self.learner.parameters())]
        self.trainer.global_step = 0
        self.learner.train()
        self.penalty.on_train_start(self.trainer, self.learner)

    def steps(self, num_steps: int) -> None:
        penalty, learner, trainer = self.penalty, self.learner, self.trainer
        (optimizer,) = trainer.optimizers
        for _ in range(num_steps):
            batch = next(self.batches)
            penalty.on_train_batch_start(trainer, learner, batch, 0)
            loss = learner.training_step(batch, 0)
            optimizer.zero_grad()
            loss.backward()
            penalty.on_before_optimizer_step(trainer, learner, optimizer)
            optimizer.step()
            penalty.on_train_batch_end(trainer, learner, {"loss": loss.detach()}, batch, 0)
            trainer.global_step += 1

    def end(self) -> None:
        """A task ends; what mattered is kept."""
        self.penalty.on_train_end(self.trainer, self.learner)
        self.keep()

    def keep(self) -> None:
        generator = torch.Generator().manual_seed(0)
        limit = self.penalty.num_samples
        batches = importance_batches(self.examples, limit, torch.device("cpu"), generator)
        self.penalty.after_task(self.learner, batches, generator)

    def learn(self, num_tasks: int, num_steps: int) -> None:
        for _ in range(num_tasks):
            self.start()
            self.steps(num_steps)
            self.end()

    @property
    def parameter_bytes(self) -> int:
        return sum(p.nbytes for p in self.learner.backbone.parameters())
