"""EWC: Overcoming catastrophic forgetting in neural networks (Kirkpatrick et al. 2017, arXiv 1612.00796)."""

import sys
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lifelong.importance import fisher
from lifelong.importance.estimators import LABELS
from lifelong.methods.guards import check_choice, check_number
from lifelong.methods.method import Batches, Learned, Params
from lifelong.methods.penalty import Penalty
from lifelong.methods.quadratic import merge_quadratics


class EWC(Penalty):
    """Σ_{j<k} (λ/2) Σ_i F^j_i (θ_i − θ^j_i)²: one quadratic per past task, each with its own anchor.

    F is the diagonal of the Fisher information, a mean over samples. The T quadratics are held as one, A (θ − μ)² plus
    a constant, which equals their sum exactly: memory is 2P whatever T.

    Args:
        labels: which y the Fisher's E[(∂ log p(y|x)/∂θ)²] is over: "exact" all y ~ p(y|x), "sampled" one y ~ p(y|x)
            per x, "empirical" the true label (van de Ven 2025), "pred" the y of the largest visible logit. Two
            reproduce published tables only: "weighted" the true label's term times p(y|x), "batched" the square of
            the gradient of a batch's mean loss, samples shuffled.
        num_samples: samples of a task the Fisher is computed on, drawn at random; None: all.
        batch_size: samples of a batch for "batched".
    """

    coefficient = 0.5
    state: ClassVar[tuple[str, ...]] = ("anchor", "importance", "constant")

    def __init__(
        self,
        strength: float,
        *,
        labels: str = "exact",
        num_samples: int | None = None,
        batch_size: int = 128,
        **base: Any,
    ) -> None:
        super().__init__(strength, **base)
        check_choice("labels", labels, LABELS)
        if num_samples is not None:
            check_number("num_samples", num_samples, low=1, whole=True, other="null")
        check_number("batch_size", batch_size, low=1, whole=True)
        if labels == "batched" and num_samples is None:
            num_samples = sys.maxsize  # drawing all of them shuffles: batches of one class would cancel less
        self.labels, self.num_samples, self.batch_size = labels, num_samples, batch_size
        self.constant = torch.zeros((), dtype=torch.float64)

    def importance_of_task(self, learner: Learned, batches: Batches, generator: torch.Generator) -> Params:
        return fisher(
            learner.backbone, batches, labels=self.labels, visible=learner.visible, batch_size=self.batch_size,
            generator=generator,
        )  # fmt: skip

    def merge(self, new: Params, weights: Params) -> None:
        if not self.importance:
            return super().merge(new, weights)
        for name, F in new.items():
            merged = merge_quadratics(self.anchor[name], self.importance[name], weights[name], F)
            self.anchor[name], self.importance[name] = merged[:2]
            self.constant = self.constant.to(F.device) + merged[2]

    def value(self, backbone: nn.Module) -> Tensor:
        """(λ/2) [Σ_i A_i (θ_i − μ_i)² + constant] = the sum over past tasks."""
        return super().value(backbone) + self.coefficient * self.strength * self.constant
