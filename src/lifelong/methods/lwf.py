"""LwF: Learning without forgetting (Li & Hoiem 2016, arXiv 1606.09282)."""

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.functional import kl_div

from lifelong.data.loader import Batch
from lifelong.data.stream import TaskStream
from lifelong.methods.distillation import Distillation
from lifelong.methods.guards import check_choice, check_number


class LwF(Distillation):
    """+ λ T² KL(softmax(z_old/T) ‖ softmax(z/T)) on the task's own inputs, z_old of the network before the task, over
    the columns seen before; in task-incremental learning for each earlier head, summed. strength is λ.

    Args:
        weight: "heads" as above; "tasks" (van de Ven et al. 2022): at task k the mean over earlier heads times k − 1,
            which is the same where every earlier task has a head.
        columns: whose softmax(z/T) is taken: "old" as above; "visible" (van de Ven, class-incremental): also of the new
            columns, in which softmax(z_old/T) counts as 0. So samples of new classes pull towards the old ones.
        reduction: "batchmean" is the mean over samples as above; "mean" (van de Ven & Tolias, an early commit) divides
            by the number of the softmax's columns, too, so that new classes weaken the distillation.
    """

    def __init__(
        self,
        strength: float,
        temperature: float = 2.0,
        weight: str = "heads",
        columns: str = "old",
        reduction: str = "batchmean",
    ) -> None:
        super().__init__()
        check_choice("weight", weight, ("heads", "tasks"))
        check_choice("columns", columns, ("old", "visible"))
        check_choice("reduction", reduction, ("batchmean", "mean"))
        check_number("strength", strength, low=0)
        check_number("temperature", temperature, low=0, above=True)
        self.strength, self.temperature = float(strength), float(temperature)
        self.weight, self.columns, self.reduction = weight, columns, reduction

    def check(self, stream: TaskStream, backbone: nn.Module) -> None:
        super().check(stream, backbone)
        if self.columns == "visible" and stream.scenario != "class":
            raise ValueError(f"scenario must be class with method.columns=visible, got {stream.scenario!r}")
        if self.columns == "visible" and stream.active_classes == "all":
            raise ValueError("active_classes must be seen with method.columns=visible (else none is new), got all")

    @property
    def active(self) -> bool:
        return self.strength > 0 and bool(self.teacher)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self.active:
            columns, groups = self.seen.nonzero().flatten(), self.learner.groups
            beside = (self.learner.visible & ~self.seen) if self.columns == "visible" else torch.zeros_like(self.seen)
            self._beside = beside.nonzero().flatten()  # columns that compete with the old ones in the new softmax
            owners = columns.new_zeros(len(columns)) if groups is None else groups[columns]
            self._heads = [columns[owners == owner] for owner in owners.unique()]  # the columns of each earlier head
            self._share = self.task.index / len(self._heads) if self.weight == "tasks" and self.task else 1.0

    def extra_loss(self, batch: Batch, z: Tensor) -> Tensor:
        z_old, T = self._network(batch.x), self.temperature
        exact = torch.promote_types(z.dtype, torch.float32)  # of half-precision logits the divergence is noise
        each = []
        for head in self._heads:
            columns = torch.cat([head, self._beside])
            new = (z[:, columns] / T).log_softmax(1, exact)[:, : len(head)]
            old = (z_old[:, head] / T).log_softmax(1, exact)
            count = len(columns) if self.reduction == "mean" else 1
            each.append(kl_div(new, old, log_target=True, reduction="batchmean") / count)
        return self.strength * self._share * T**2 * batch.weight * torch.stack(each).sum()
