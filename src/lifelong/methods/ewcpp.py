"""EWC++: Riemannian walk for incremental learning, section 3.1 (Chaudhry et al. 2018, arXiv 1801.10112)."""

from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lifelong.data.stream import Task
from lifelong.distributed.ranks import total_over_ranks
from lifelong.importance import fisher
from lifelong.importance.estimators import LABELS
from lifelong.methods.guards import PenaltyError, check_choice, check_number
from lifelong.methods.method import Batches, Learned, Params
from lifelong.methods.penalty import Penalty


class EWCPP(Penalty):
    """(λ/2) Σ_i F̃_i (θ_i − θ*_i)², latest anchor: F a moving average kept while training, F̃ its min–max normalisation.

    F ← α F_batch + (1 − α) F, never reset. F_batch is the mean over the samples of one optimiser step's batch of one
    sample's squared gradient of the unregularised loss, at the weights before the step, in eval mode like every
    importance. In task-incremental replay only the current task's samples enter.

    Args:
        alpha: α in (0, 1], the weight of the new.
        interval: optimiser steps between two updates; a task with fewer steps has one update, at its last step.
        labels: as in EWC; "empirical" is the gradient of the very loss that is trained. The batches of "batched" are a
            step's, one a micro-batch and rank.
        window: "step": F_batch is of the batch of an interval's last step; "interval" (A-GEM): the mean over those of
            all its steps, each at the weights of its time, those after a task's last whole interval left out; "task"
            (A-GEM's RWalk): the sum over the task's steps so far, over `interval`.
    """

    coefficient = 0.5
    state: ClassVar[tuple[str, ...]] = ("anchor", "importance", "fisher", "steps")

    def __init__(
        self,
        strength: float,
        *,
        alpha: float = 0.9,
        interval: int = 10,
        labels: str = "empirical",
        window: str = "step",
        **base: Any,
    ) -> None:
        super().__init__(strength, **base)
        check_number("alpha", alpha, low=0, high=1, above=True)
        check_number("interval", interval, low=1, whole=True)
        check_choice("labels", labels, LABELS)
        check_choice("window", window, ("step", "interval", "task"))
        self.alpha, self.interval, self.length, self.labels = alpha, interval, interval, labels
        self.fisher: Params = {}
        self.fresh: Params = {}
        self.steps, self.window = 0, window
        self.gathered: Params = {}  # of the interval or task so far
        if window != "step":  # only then, so that checkpoints without it can still be read
            self.state = (*self.state, "gathered")  # type: ignore[misc]

    def before_task(self, task: Task) -> None:
        self.begin({})

    def begin(self, weights: Params) -> None:
        """Count steps from here on; the moving average goes on from task to task."""
        self.steps, self.gathered = 0, {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self.length = int(min(self.interval, trainer.estimated_stepping_batches))
        self._batches: list[tuple[Tensor, Tensor]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self.wants_batches():
            self._batches.append(batch.counted)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self.before_step(self.learner, self._batches)
        self._batches = []
        super().on_before_optimizer_step(trainer, pl_module, optimizer)

    @property
    def ends_interval(self) -> bool:
        """Whether the next step does."""
        return (self.steps + 1) % self.length == 0

    def wants_batches(self) -> bool:
        """Whether the next step's batch enters."""
        return self.window != "step" or self.ends_interval

    def before_step(self, learner: Learned, batches: list[tuple[Tensor, Tensor]]) -> None:
        """F_batch of the step's batches, θ still where its gradient was taken; the step may yet be skipped."""
        self.fresh = self.fisher_of(learner, batches) if batches else {}

    def after_step(self, grads: Params, before: Params, after: Params) -> None:
        if self.window == "step":
            self.update_fisher(self.fresh)
        else:
            self.gather()
        self.steps += 1
        self.fresh = {}

    def gather(self) -> None:
        """Add the step's F_batch to what the window holds, which enters the average at the interval's end."""
        for n, F in self.fresh.items():
            share = F.div_(self.length)
            self.gathered[n] = self.gathered[n].add_(share) if n in self.gathered else share
        if self.ends_interval:
            gathered, self.gathered = self.gathered, {}
            if self.window == "task":
                self.gathered = {n: F.clone() for n, F in gathered.items()}
            self.update_fisher(gathered)

    def fisher_of(self, learner: Learned, batches: list[tuple[Tensor, Tensor]]) -> Params:
        """F_batch over the samples of all micro-batches of a step, on all ranks; {} if none is the current task's."""
        own = [(x[shown], y[shown]) for x, y in batches if (shown := learner.visible[y]).any()]
        if total_over_ranks(len(own)) == 0:
            return {}
        generator = torch.Generator(learner.visible.device).manual_seed(torch.initial_seed() + self.steps + 1)
        return fisher(learner.backbone, own, labels=self.labels, visible=learner.visible, generator=generator)

    def update_fisher(self, new: Params) -> None:
        """F ← α F_batch + (1 − α) F, in the place of both."""
        for n, F in new.items():
            F.mul_(self.alpha)
            self.fisher[n] = self.fisher[n].mul_(1 - self.alpha).add_(F) if n in self.fisher else F

    def importance_of_task(self, learner: Learned, batches: Batches, generator: torch.Generator) -> Params:
        if not self.fisher:
            raise PenaltyError(
                f"method.interval must not exceed the steps a task is stopped after, got {self.interval}"
            )
        return min_max_normalised({n: self.fisher[n] for n in self.penalised(learner.backbone)})

    def merge(self, new: Params, weights: Params) -> None:
        self.importance, self.anchor = new, weights


def min_max_normalised(params: Params) -> Params:
    """(x − min)/(max − min) with the extremes over all parameters together; all zeros if they are equal."""
    extremes = torch.stack([torch.stack(torch.aminmax(x)) for x in params.values()])
    low, high = extremes[:, 0].min(), extremes[:, 1].max()
    spread = torch.where(high > low, high - low, torch.ones_like(high))
    return {n: (x - low) / spread for n, x in params.items()}
