"""A learner driven step by step by the hooks a Trainer calls, in its order, without a Trainer around them."""

from collections.abc import Iterator, Sequence
from itertools import cycle
from types import SimpleNamespace
from typing import Any

import torch

from lifelong.config.build import build, factory
from lifelong.config.schema import compose
from lifelong.data.examples import Examples
from lifelong.data.loader import Batch
from lifelong.experiment.parts import make_learner
from lifelong.methods.method import Method
from lifelong.models.learner import Learner
from lifelong.training.loop import importance_batches

BATCH_SIZE = 128


def drivable(method: str) -> bool:
    """Whether a driver can run it: on one head, without a memory that is filled while a real Trainer trains."""
    built: Method = build(compose([f"method={method}"]).method, "method")
    return "domain" in built.scenarios and not getattr(built, "needs_logits", False)


class Driver:
    """A learner with a method that learns tasks of the same random batches.

    `num_samples` of a task are what its importance is computed on. A method that needs memory has 20 exemplars a class.
    """

    def __init__(self, method: str, widths: Sequence[int], num_samples: int) -> None:
        config = compose([f"method={method}", "memory=uniform", f"backbone.widths={list(widths)}", "optimizer.lr=1e-3"])
        torch.manual_seed(0)
        self.learner: Learner = make_learner(config, (1, 28, 28), 10, None)
        self.make_optimizer = factory(config.optimizer, "optimizer")
        self.method: Method = build(config.method, "method")
        self.method.learner = self.learner
        images = torch.randint(0, 256, (num_samples, 1, 28, 28), dtype=torch.uint8)
        self.examples = Examples(images, torch.randint(10, (num_samples,)))
        if self.method.needs_memory:
            self.method.memory = build(config.memory, "memory")
        loader = SimpleNamespace(batch_size=BATCH_SIZE)
        self.trainer: Any = SimpleNamespace(current_epoch=0, estimated_stepping_batches=10**9, train_dataloader=loader)
        batches = [Batch(torch.rand(BATCH_SIZE, 1, 28, 28), torch.randint(10, (BATCH_SIZE,))) for _ in range(8)]
        self.batches: Iterator[Batch] = cycle(batches)

    def start(self) -> None:
        """A task begins, with an optimiser of its own."""
        self.trainer.optimizers = [self.make_optimizer(self.learner.parameters())]
        self.trainer.global_step = 0
        self.learner.train()
        self.method.on_train_start(self.trainer, self.learner)

    def steps(self, num_steps: int) -> None:
        method, learner, trainer = self.method, self.learner, self.trainer
        (optimizer,) = trainer.optimizers
        for _ in range(num_steps):
            batch = next(self.batches)
            method.on_train_batch_start(trainer, learner, batch, trainer.global_step)
            loss = learner.training_step(batch, 0)
            optimizer.zero_grad()
            loss.backward()
            method.on_before_optimizer_step(trainer, learner, optimizer)
            optimizer.step()
            trainer.global_step += 1

    def end(self) -> None:
        """A task ends; what mattered is kept."""
        self.method.on_train_end(self.trainer, self.learner)
        self.keep()
        if self.method.needs_memory:
            self.method.memory.after_task(self.learner, self.examples, 0, torch.Generator().manual_seed(0))

    def keep(self) -> None:
        """What follows a task: importance, or a teacher."""
        self.method.draws = torch.Generator().manual_seed(0)
        loading = {"device": torch.device("cpu"), "as_input": self.learner.as_input}
        batches = importance_batches(self.examples, self.method.num_samples, self.method.draws, **loading)
        self.method.after_task(None, batches)  # type: ignore[arg-type]

    def learn(self, num_tasks: int, num_steps: int) -> None:
        for _ in range(num_tasks):
            self.start()
            self.steps(num_steps)
            self.end()

    @property
    def parameter_bytes(self) -> int:
        return sum(p.nbytes for p in self.learner.backbone.parameters())
