"""Memory aware synapses: learning what (not) to forget (Aljundi et al. 2018, arXiv 1711.09601)."""

from typing import Any

import torch

from lifelong.importance import mas
from lifelong.importance.local import local_mas
from lifelong.methods.method import Batches, Learned, Params
from lifelong.methods.penalty import Penalty


class MAS(Penalty):
    """Ω = mean over samples of |∂‖f(x)‖²/∂θ|, f the logits; summed over tasks, latest anchor. Needs no labels.

    Args:
        local: the paper's l-MAS: for a linear layer between units y_i and y_j, Ω_ij = mean over samples of y_i y_j;
            biases see y_i = 1. Only for backbones whose parameters are all of linear layers that feed ReLU units or
            the output.
    """

    def __init__(self, strength: float, *, local: bool = False, **base: Any) -> None:
        super().__init__(strength, **base)
        self.local = local

    def importance_of_task(self, learner: Learned, batches: Batches, generator: torch.Generator) -> Params:
        estimate = local_mas if self.local else mas
        return estimate(learner.backbone, batches, visible=learner.visible)
