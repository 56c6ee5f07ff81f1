"""A learner driven step by step by the hooks a Trainer calls, in its order, without a Trainer around them."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from lifelong.config.build import build, factory
from lifelong.config.schema import compose
from lifelong.data.examples import Examples
from lifelong.data.loader import Batch
from lifelong.data.stream import Task
from lifelong.experiment.parts import make_learner
from lifelong.methods.method import Method
from lifelong.models.learner import Learner
from lifelong.training.loop import importance_batches

BATCH_SIZE = 128
NUM_CLASSES = 10
CLASSES_PER_TASK = 2
"""Of a stream that is not domain-incremental."""


class Driver:
    """A learner with a method that learns tasks of the same random images.

    The scenario is domain-incremental, or what the method needs. `num_samples` of a task are what its importance is
    computed on. A method that needs memory has 20 exemplars a class, or a reservoir of 200 if it needs their logits.
    """

    def __init__(self, method: str, widths: Sequence[int], num_samples: int) -> None:
        settings = [f"method={method}", f"backbone.widths={list(widths)}", "optimizer.lr=1e-3"]
        self.method: Method = build(compose(settings).method, "method")
        needs_logits = getattr(self.method, "needs_logits", False)
        config = compose([*settings, "memory=reservoir" if needs_logits else "memory=uniform"])
        if needs_logits:
            config.memory.total = 20 * NUM_CLASSES
        self.scenario = "domain" if "domain" in self.method.scenarios else self.method.scenarios[0]
        owners = torch.arange(NUM_CLASSES) // CLASSES_PER_TASK
        torch.manual_seed(0)
        self.learner: Learner = make_learner(
            config, (1, 28, 28), NUM_CLASSES, owners if self.scenario == "task" else None
        )
        self.make_optimizer = factory(config.optimizer, "optimizer")
        self.method.learner = self.learner
        if self.method.needs_memory:
            self.method.memory = build(config.memory, "memory")
        self.images = torch.randint(0, 256, (num_samples, 1, 28, 28), dtype=torch.uint8)
        self.labels = torch.randint(NUM_CLASSES, (num_samples,))
        self.pairs = [(torch.rand(BATCH_SIZE, 1, 28, 28), torch.randint(NUM_CLASSES, (BATCH_SIZE,))) for _ in range(8)]
        loader = SimpleNamespace(batch_size=BATCH_SIZE)
        self.trainer: Any = SimpleNamespace(
            current_epoch=0,
            max_steps=-1,
            accumulate_grad_batches=1,
            estimated_stepping_batches=10**9,
            num_training_batches=10**9,
            train_dataloader=loader,
        )
        self.num_learned = 0

    def start(self) -> None:
        """A task begins, with an optimiser of its own."""
        self.task = task = self.method.task = self.make_task(self.num_learned)
        first = 0 if self.scenario == "class" else task.classes[0]
        self.learner.show(range(first, task.classes[-1] + 1))
        self.learner.num_steps = 10**9
        self.batches = [Batch(x, self.labels_of(task, y)) for x, y in self.pairs]
        self.method.setup(self.trainer, self.learner, "fit")
        self.trainer.optimizers = [self.learner.make_optimizer(self.learner.parameters())]
        self.trainer.global_step = 0
        self.learner.train()
        self.method.on_train_start(self.trainer, self.learner)

    def make_task(self, k: int) -> Task:
        """All classes at each task, or two at each of five and then again."""
        start = CLASSES_PER_TASK * k % NUM_CLASSES
        columns = range(NUM_CLASSES) if self.scenario == "domain" else range(start, start + CLASSES_PER_TASK)
        task = Task(k, str(k), tuple(columns), k, lambda part: self.examples)
        self.examples = Examples(self.images, self.labels_of(task, self.labels))
        return task

    @staticmethod
    def labels_of(task: Task, labels: torch.Tensor) -> torch.Tensor:
        return labels % len(task.classes) + task.classes[0]

    def steps(self, num_steps: int) -> None:
        method, learner, trainer = self.method, self.learner, self.trainer
        (optimizer,) = trainer.optimizers
        for _ in range(num_steps):
            batch = self.batches[trainer.global_step % len(self.batches)]
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
        self.method.teardown(self.trainer, self.learner, "fit")
        self.keep()
        memory, task = self.method.memory, self.task
        if memory.offered:
            memory.offer(self.learner, self.examples, np.arange(len(self.examples)), task.index, seed=task.index)
        memory.after_task(self.learner, self.examples, task.base, torch.Generator().manual_seed(0))
        self.num_learned += 1

    def keep(self) -> None:
        """What follows a task: importance, or a teacher."""
        self.method.draws = torch.Generator().manual_seed(0)
        loading = {"device": torch.device("cpu"), "as_input": self.learner.as_input}
        batches = importance_batches(self.examples, self.method.num_samples, self.method.draws, **loading)
        self.method.after_task(self.task, batches)

    def learn(self, num_tasks: int, num_steps: int) -> None:
        for _ in range(num_tasks):
            self.start()
            self.steps(num_steps)
            self.end()

    @property
    def parameter_bytes(self) -> int:
        return sum(p.nbytes for p in self.learner.backbone.parameters())
