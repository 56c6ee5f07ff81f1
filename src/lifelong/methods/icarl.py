"""iCaRL: Incremental classifier and representation learning (Rebuffi et al. 2017, arXiv 1611.07725)."""

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from lifelong.data.examples import Examples
from lifelong.data.loader import Batch
from lifelong.data.stream import Task, TaskStream
from lifelong.distributed.ranks import copy_from_rank_zero_
from lifelong.importance.traceless import leaving_no_trace
from lifelong.memory.base import in_batches
from lifelong.methods.distillation import Distillation
from lifelong.methods.guards import check_number


class ICaRL(Distillation):
    """Σ_c BCE(σ(z_c), q_c), a mean over samples, in the place of the task loss: q is one-hot for the task's own columns
    and σ(z_old) for those of earlier tasks, z_old of the network before the task; on new data and exemplars alike.

    A test sample belongs to the class whose mean feature is nearest, features and means of length 1; the mean is over
    the exemplars, for a class in work that has none yet over its training data.

    Args:
        temperature: T of targets σ(z_old/T) beside σ(z); iCaRL has 1, the code of van de Ven 2.
    """

    scenarios = ("class",)
    needs_memory = True
    replaces_loss = True
    needs_seen = True
    state = (*Distillation.state, "means")

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        check_number("temperature", temperature, low=0, above=True)
        self.temperature = float(temperature)
        self.means = torch.empty(0)  # (K, D), 0 for a class without one

    def check(self, stream: TaskStream, backbone: nn.Module) -> None:
        super().check(stream, backbone)
        if not callable(getattr(backbone, "features", None)):
            raise ValueError("backbone must have features(x) → (B, D) with ICaRL, which classifies by their means")

    # Training ------------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._old = self.seen.clone()
        if self.task and self.teacher:
            self._old[list(self.task.classes)] = False

    def extra_loss(self, batch: Batch, z: Tensor) -> Tensor:
        exact = torch.promote_types(z.dtype, torch.float32)  # which the loss computes σ(z) in
        targets = torch.zeros_like(z, dtype=exact).scatter_(1, batch.y.unsqueeze(1), 1.0)  # one_hot waits on a GPU
        if self.teacher:
            targets = torch.where(self._old, (self._network(batch.x).to(exact) / self.temperature).sigmoid(), targets)
        shown = self.learner.visible.to(z)
        return batch.weight * binary_cross_entropy_with_logits(z, targets, shown, reduction="sum") / len(z)

    # Test ----------------------------------------------------------------------------------------------------------

    def enter(self, task: Task | None) -> None:
        """Have the backbone return, by class, the cosine of its features and the class's mean."""
        entered = vars(self.learner.backbone)
        if task is None:
            entered.pop("forward", None)
        elif "forward" not in entered:
            self.means = self.class_means()
            if len(self.means):
                entered["forward"] = self.cosines

    def cosines(self, x: Tensor) -> Tensor:
        """(B, K), −inf for a class without a mean."""
        features = normalize(self.learner.backbone.features(x))  # type: ignore[operator]
        return (features @ self.means.to(features).T).masked_fill(~self.means.any(1), -torch.inf)

    @torch.no_grad()
    def class_means(self) -> Tensor:
        """The means of what there is; of a loaded run, which has no exemplars, those it had at its end."""
        examples = self.examples_of_classes()
        if examples is None:
            return self.means
        backbone = self.learner.backbone
        with leaving_no_trace(backbone):
            features = normalize(in_batches(backbone.features, self.learner, examples))  # type: ignore[arg-type]
        sums = features.new_zeros(len(self.learner.visible), features.shape[1])
        means = normalize(sums.index_add_(0, examples.labels.cpu(), features)).to(next(backbone.parameters()))
        copy_from_rank_zero_([means])
        return means

    def examples_of_classes(self) -> Examples | None:
        """The exemplars, and the training data of a class in work that has none."""
        held, task = self.memory.examples, self.task
        known = set() if held is None else set(held.labels.unique().tolist())
        new = [c for c in task.classes if c not in known] if task else []
        if not new or task is None:
            return held
        rows = torch.isin(task.train.labels, torch.tensor(new).to(task.train.labels)).nonzero().flatten()
        own = task.train.subset(rows)
        return own if held is None else Examples.concat([held.to(own.labels.device), own])
