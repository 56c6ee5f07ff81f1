"""Entropy sampling of exemplars (Chaudhry et al. 2018, arXiv 1801.10112)."""

import torch
from torch import Tensor

from lifelong.data.examples import Examples
from lifelong.memory.base import ExemplarMemory, Learned, in_batches


class Entropy(ExemplarMemory):
    """q ∝ H(softmax z) over the visible columns: the less certain the network, the likelier."""

    def scores(self, learner: Learned, candidates: Examples) -> Tensor:
        z = in_batches(learner.backbone, learner, candidates)[:, learner.visible.cpu()]
        return torch.special.entr(z.softmax(1)).sum(1)
