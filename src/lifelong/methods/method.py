"""The slot: what a continual-learning method may do to ordinary training. One file and one yaml a method."""

from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from lifelong.data.examples import Examples
from lifelong.data.loader import Augment, Batch
from lifelong.data.seeds import derive_seed, derived_generator
from lifelong.data.stream import Task, TaskStream
from lifelong.memory.base import Memory
from lifelong.methods.learned import Batches, Learned, Params, gradient
from lifelong.methods.state import Stateful

__all__ = ["Batches", "Learned", "Method", "Params"]
OFFER = 2
"""Keeps the draws of a memory apart from those of a method at the same batch."""


class Method(Stateful):
    """Plain fine-tuning. Override the verbs that the paper needs; the others cost nothing.

        for task in stream:                     # but for those that were learned before their turn (learned)
            before_task(task)
            for batch in examples(stream, task):
                z = learner.logits(batch.x)
                loss = learner.task_loss(z, batch.y) + extra_loss(batch, z)
                loss.backward()
                edit_gradients(grads)               # after unscaling and the mean over ranks, before clipping
                optimizer.step()
                after_step(grads, before, after)
            after_task(task, batches)
            for other in stream: enter(other); test; enter(None)

    `grads` is the gradient of all that autograd saw, task_loss + extra_loss; one that a method computes itself it
    reduces over ranks itself. What it draws comes from `generator`, so that a resumed run draws the same.

    Attributes:
        learner, memory: wired by the experiment.
        task: the task in work, set before `before_task` and again when an interrupted task resumes.
        seed: of the task in work; augment: of its training batches.
        keeps_importance: whether `task_importance` is to be set, by methods that have an importance.
        task_importance: Ω >= 0 of the task just learned, by itself; None if it is not kept or there is none.
        draws: a generator on the device for what is drawn after a task, a function of (seed, task).
    """

    watches_path: ClassVar[bool] = False
    """Whether `after_step` is given `grads` and `before`, two copies of the weights a step; else both are {}."""
    scenarios: ClassVar[tuple[str, ...]] = ("domain", "task", "class")
    needs_memory: ClassVar[bool] = False
    needs_seen: ClassVar[bool] = False
    """Whether it must know which columns are new: `active_classes=all` shows it all of them at once."""
    replays: bool = False
    """Whether the method draws from memory itself; else what memory holds is mixed into the training batches."""
    replaces_loss: ClassVar[bool] = False
    """Whether `extra_loss` stands in the place of the task loss."""
    num_samples: int | None = None
    """How many samples of a task `after_task` is given (a random subset); None: all."""
    exclude: tuple[str, ...] = ()

    learner: Learned
    memory: Memory = Memory()
    task: Task | None = None
    seed: int = 0
    augment: Augment | None = None
    keeps_importance: bool = False
    task_importance: Params | None = None
    draws: torch.Generator
    _position: tuple[int, int] = (0, 0)

    def check(self, stream: TaskStream, backbone: nn.Module) -> None:
        """Raise ValueError, in one line, if the method cannot work on this stream, with this memory or backbone."""
        name = type(self).__name__
        if stream.scenario not in self.scenarios:
            raise ValueError(f"scenario must be {' or '.join(self.scenarios)} with {name}, got {stream.scenario!r}")
        if self.needs_seen and stream.active_classes == "all":
            raise ValueError(f"active_classes must be seen with {name}, which asks what columns are new, got all")
        if self.needs_memory and not self.memory.keeps:
            raise ValueError(f"memory must keep exemplars with {name}, got memory=none")
        self.penalised(backbone)

    def before_task(self, task: Task) -> None:
        """Called when a task starts, before its first step; not again when an interrupted task resumes."""

    def examples(self, stream: TaskStream, task: Task) -> Examples:
        """What is trained on at this task."""
        return task.train

    def learned(self, stream: TaskStream, task: Task) -> int:
        """Index of the last task that is learned when this one's turn is over."""
        return task.index

    @property
    def active(self) -> bool:
        """Whether `extra_loss` and `edit_gradients` have a say now; if not, a step is fine-tuning's to the last bit."""
        return True

    def extra_loss(self, batch: Batch, z: Tensor) -> Tensor:
        """A term beside the task loss: a mean over samples, times the weight of the batch it is a mean over.

        z: logits (B, K) of the batch. Goes into backward with the task loss.
        """
        return z.new_zeros(())

    def edit_gradients(self, grads: Params) -> None:
        """Change the gradient of the step in place: penalties, projections, masks."""

    def after_step(self, grads: Params, before: Params, after: Params) -> None:
        """Called after each optimiser step that was made, not after one that was skipped (16-mixed, an overflow).

        grads: before `edit_gradients`; before, after: the weights on both sides of the step; `after` is the live ones.
        """

    def after_task(self, task: Task, batches: Batches) -> None:
        """Keep what matters of the task; batches: this rank's shard of its training data, in order, not augmented."""

    def enter(self, task: Task | None) -> None:
        """Make the learner what it is on this task at test time; None: what it was before."""

    def measures(self, learner: Learned) -> dict[str, float]:
        """Numbers of this step for history and loggers, with the task's gradient in .grad, before `edit_gradients`."""
        return {}

    @property
    def importance_shown(self) -> Params:
        """Ω that loggers draw; {} without one."""
        return {}

    def penalised(self, backbone: nn.Module) -> Params:
        """The trainable parameters by name, but for the excluded. Raises ValueError if a prefix matches none."""
        trainable = {n: p for n, p in backbone.named_parameters() if p.requires_grad}
        for prefix in self.exclude:
            if not any(_below(name, prefix) for name in trainable):
                raise ValueError(f"method.exclude must hold prefixes of {', '.join(trainable)}, got {prefix!r}")
        kept: Params = {n: p for n, p in trainable.items() if not any(_below(n, prefix) for prefix in self.exclude)}
        if not kept:
            raise ValueError(f"method.exclude must leave some parameter to penalise, got {list(self.exclude)}")
        return kept

    def weights(self) -> Params:
        """Copies of the penalised parameters."""
        return {n: p.detach().clone() for n, p in self.penalised(self.learner.backbone).items()}

    def generator(self, *purpose: int) -> torch.Generator:
        """A CPU generator that is a function of the task's seed, the epoch, the batch and `purpose`."""
        return derived_generator(self.seed, *self._position, *purpose)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        learner: Any = pl_module
        self.learner = learner
        self._params = self.penalised(learner.backbone)
        self._position = 0, 0  # not that of the task before, which a resumed run does not know
        self._raw: Params = {}
        self._before: Params = {}
        learner.terms = [self._term] if self._overrides("extra_loss") else []
        learner.with_task_loss = not self.replaces_loss
        if trainer.global_step == 0:
            self.before_task(self.task)  # type: ignore[arg-type]
        self._hooks = [o.register_step_post_hook(self._on_stepped) for o in trainer.optimizers]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        learner: Any = pl_module
        learner.terms, learner.with_task_loss = [], True
        for hook in self._hooks:
            hook.remove()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._position = trainer.current_epoch, batch_idx

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The loader knows the samples of all ranks without asking them, so every rank's memory holds the same."""
        if self.memory.offered and trainer.current_epoch == 0 and self.task is not None:
            loader: Any = trainer.train_dataloader
            index = loader.positions(batch_idx)
            own = index[index < len(self.task.train)]  # what memory put into the batch stands behind
            seed = derive_seed(self.seed, *self._position, OFFER)
            self.memory.offer(self.learner, loader.examples, own, self.task.index, seed)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if self.watches_path:
            self._raw = {n: gradient(p).clone() for n, p in self._params.items()}
            self._before = {n: p.detach().clone() for n, p in self._params.items()}
        if self._overrides("edit_gradients") and self.active:
            for p in self._params.values():
                p.grad = gradient(p)
            with torch.no_grad():
                self.edit_gradients({n: p.grad for n, p in self._params.items()})  # type: ignore[misc]

    def _on_stepped(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Called only when the optimiser really stepped, not when it skipped a step for an overflow (16-mixed)."""
        if self._overrides("after_step"):
            with torch.no_grad():
                self.after_step(self._raw, self._before, {n: p.detach() for n, p in self._params.items()})
            self._raw, self._before = {}, {}

    def _term(self, batch: Batch, z: Tensor) -> Tensor | float:
        return self.extra_loss(batch, z) if self.active else 0.0

    def _overrides(self, verb: str) -> bool:
        return getattr(type(self), verb) is not getattr(Method, verb)


def _below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")
