"""Memory aware synapses: learning what (not) to forget (Aljundi et al. 2018, arXiv 1711.09601)."""

import sys
from typing import Any

import torch
from torch import nn

from lifelong.data.stream import TaskStream
from lifelong.importance import mas
from lifelong.importance.local import linear_layers, local_mas
from lifelong.methods.guards import check_choice, check_number
from lifelong.methods.method import Batches, Learned, Params
from lifelong.methods.penalty import Penalty


class MAS(Penalty):
    """Ω = mean over samples of |∂‖f(x)‖²/∂θ|, f the logits; summed over tasks, latest anchor. Needs no labels.

    Args:
        local: the paper's l-MAS: for a linear layer between units y_i and y_j, Ω_ij = mean over samples of y_i y_j;
            biases see y_i = 1. Only for backbones whose parameters are all of linear layers that feed ReLU units or
            the output.
        batch: None: the absolute value of each sample's gradient. A number reproduces published tables only: that of
            the mean gradient of so many samples, shuffled, in which signs cancel.
        outputs: "sum" ‖f(x)‖² as above; "mean" (Hsu et al. 2018): ‖f(x)‖²/K, K the visible columns.
        gamma: γ in [0, 1] of Ω ← γΩ + the task's own; 0, the last task alone, is what A-GEM's code does.
    """

    def __init__(
        self,
        strength: float,
        *,
        local: bool = False,
        batch: int | None = None,
        outputs: str = "sum",
        gamma: float = 1.0,
        **base: Any,
    ) -> None:
        super().__init__(strength, **base)
        if batch is not None:
            check_number("batch", batch, low=1, whole=True, other="null")
            self.num_samples = sys.maxsize  # drawing all of them shuffles: batches of one class would cancel less
        check_choice("outputs", outputs, ("sum", "mean"))
        if local and (batch is not None or outputs != "sum"):
            raise ValueError("method.local must be false with method.batch or method.outputs=mean, got True")
        check_number("gamma", gamma, low=0, high=1)
        self.local, self.batch, self.outputs, self.gamma = local, batch, outputs, gamma

    def check(self, stream: TaskStream, backbone: nn.Module) -> None:
        super().check(stream, backbone)
        if self.local:
            linear_layers(backbone)

    def importance_of_task(self, learner: Learned, batches: Batches, generator: torch.Generator) -> Params:
        visible = learner.visible
        if self.local:
            return local_mas(learner.backbone, batches, visible=visible)
        found = mas(learner.backbone, batches, visible=visible, batch_size=self.batch)
        return found if self.outputs == "sum" else {n: w / int(visible.sum()) for n, w in found.items()}

    def merge(self, new: Params, weights: Params) -> None:
        if self.gamma != 1:
            self.importance = {n: self.gamma * w for n, w in self.importance.items()}
        super().merge(new, weights)
