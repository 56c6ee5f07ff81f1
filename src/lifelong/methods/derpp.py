"""DER++: Dark experience for general continual learning (Buzzega et al. 2020, arXiv 2004.07211, eq. 6)."""

import torch
from torch import Tensor

from lifelong.data.loader import Batch
from lifelong.methods.der import DER, departure
from lifelong.methods.guards import check_number


class DERPP(DER):
    """DER + β task_loss on a second draw. strength is α, label_strength β; both draws are one pass of the network."""

    def __init__(self, strength: float, label_strength: float, batch_size: int | None = None) -> None:
        super().__init__(strength, batch_size)
        check_number("label_strength", label_strength, low=0)
        self.label_strength = float(label_strength)

    @property
    def active(self) -> bool:
        return self.strength + self.label_strength > 0 and len(self.rows()) > 0

    def extra_loss(self, batch: Batch, z: Tensor) -> Tensor:
        first, second = self.replayed(), self.replayed(1)
        old, new = self.learner.logits(torch.cat([first.x, second.x])).split([len(first.x), len(second.x)])
        labelled = second.weight * self.learner.task_loss(new, second.y)
        return self.strength * departure(old, first) + self.label_strength * labelled
