"""K-FAC EWC: Online structured Laplace approximations (Ritter et al. 2018, arXiv 1805.07810)."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lifelong.data.stream import Task
from lifelong.importance.kronecker import kronecker_fisher
from lifelong.methods.guards import check_choice, check_number
from lifelong.methods.kronecker import Kronecker, Pairs
from lifelong.methods.method import Batches, Learned, Params
from lifelong.methods.penalty import Penalty


class KFACEWC(Penalty):
    """(λ/2) Σ_layers ⟨G ΔW A, ΔW⟩, ΔW from the latest anchor: the Fisher of a layer is A ⊗ G, that of exact labels.

    Other parameters than those of nn.Linear and nn.Conv2d have EWC's diagonal F, summed over tasks.

    Args:
        factors: what the A_k ⊗ G_k of the tasks become. "one": one pair, A the mean of the A_k and G the sum of the
            G_k, which is exact where the A_k are equal; "sum": their sum, a pair for each task: memory and the time of
            a step grow with the tasks, and there is no proximal step.
        every: optimiser steps between two proximal ones, each of so many learning rates; a task with fewer has one, at
            its last step. The products of a layer with D inputs and O outputs cost (D + O)/(3B) of training it on B
            samples for a gradient, and twice that for a proximal step.
        num_samples: samples of a task the Fisher is computed on, drawn at random; None: all.
    """

    coefficient = 0.5
    state = ("anchor", "importance", "inputs", "outputs", "num_tasks", "steps")

    def __init__(
        self, strength: float, *, factors: str = "one", every: int = 1, num_samples: int | None = None, **base: Any
    ) -> None:
        super().__init__(strength, **base)
        check_choice("factors", factors, ("one", "sum"))
        if factors == "sum" and self.step == "proximal":
            raise ValueError("method.step must be gradient with method.factors=sum, got 'proximal'")
        if num_samples is not None:
            check_number("num_samples", num_samples, low=1, whole=True, other="null")
        check_number("every", every, low=1, whole=True)
        if every > 1 and self.step == "gradient":
            raise ValueError(f"method.every must be 1 with method.step=gradient, got {every}")
        self.factors, self.every, self.num_samples = factors, every, num_samples
        self.num_tasks = self.steps = 0
        self.inputs: dict[tuple[int, str], Tensor] = {}  # A by task, 0 for "one", and the layer's weight
        self.outputs: dict[tuple[int, str], Tensor] = {}  # G
        self._quadratic = Kronecker({}, {}, {})
        self._pairs_of_task: Pairs = {}

    @property
    def quadratic(self) -> Kronecker:
        if self._quadratic.anchor is not self.anchor:  # made once a task, for it holds eigenbases
            layers = dict.fromkeys(n for _, n in self.inputs)
            pairs = {n: [(A, self.outputs[k]) for k, A in self.inputs.items() if k[1] == n] for n in layers}
            self._quadratic = Kronecker(self.anchor, pairs, self.importance)
        return self._quadratic

    @property
    def importance_shown(self) -> Params:
        return self.quadratic.diagonal()

    def importance_of_task(self, learner: Learned, batches: Batches, generator: torch.Generator) -> Params:
        """F of the parameters outside of layers; the factors of the layers are folded in."""
        names = self.penalised(learner.backbone)
        A, G, diagonal = kronecker_fisher(learner.backbone, batches, names, visible=learner.visible)
        self._pairs_of_task = {n: [(A[n], G[n])] for n in A} if self.keeps_importance else {}
        k, self.num_tasks = self.num_tasks, self.num_tasks + 1
        if self.factors == "sum" or k == 0:
            self.inputs = self.inputs | {(k, n): a for n, a in A.items()}
            self.outputs = self.outputs | {(k, n): g for n, g in G.items()}
        else:
            self.inputs = {(0, n): a + (A[n] - a) / (k + 1) for (_, n), a in self.inputs.items()}
            self.outputs = {(0, n): g + G[n] for (_, n), g in self.outputs.items()}
        return diagonal

    def alone(self, new: Params) -> Params:
        """The diagonal of the task's own A ⊗ G, and F of the other parameters."""
        return Kronecker(self.weights(), self._pairs_of_task, new).diagonal()

    # When: Lightning's hooks ---------------------------------------------------------------------------------------

    def before_task(self, task: Task) -> None:
        self.steps = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._length = int(min(self.every, trainer.estimated_stepping_batches))

    def _proximal(self, optimizer: Optimizer, num_steps: int = 1) -> None:
        self.steps += 1
        if self.steps % self._length == 0:
            super()._proximal(optimizer, self._length)
