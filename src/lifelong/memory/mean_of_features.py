"""Mean of features, herding: iCaRL (Rebuffi et al. 2017, arXiv 1611.07725, algorithm 4)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lifelong.data.examples import Examples
from lifelong.memory.base import ExemplarMemory, Learned, in_batches


class MeanOfFeatures(ExemplarMemory):
    """The k-th exemplar is argmin_x ‖mean(φ) − (φ(x) + Σ_chosen φ)/k‖ among those not chosen yet; no chance in it.

    φ as the head sees it.

    Args:
        unit_length: φ is scaled to length 1 first, as iCaRL does, which classifies by the nearest mean.
        per_class, exemplars: as in ExemplarMemory.
    """

    needs = ("features",)

    def __init__(self, per_class: int | None = 20, *, unit_length: bool = False, **exemplars: Any) -> None:
        super().__init__(per_class, **exemplars)
        self.unit_length = unit_length

    def choose(self, learner: Learned, candidates: Examples, num: int, generator: torch.Generator) -> Tensor:
        features = in_batches(learner.backbone.features, learner, candidates)
        return herded(normalize(features) if self.unit_length else features, num)


def herded(features: Tensor, num: int) -> Tensor:
    """Positions (num,) of different rows of features (N, D) float64, in the order of greedy herding.

    k²‖mean − (φ + S)/k‖² = ‖r‖² + ‖φ‖² − 2 φ·r with r = k·mean − S: one matrix-vector product per exemplar.
    """
    mean, squares = features.mean(0), features.square().sum(1)
    residual, chosen = mean.clone(), torch.empty(num, dtype=torch.int64)
    for k in range(num):
        best = torch.argmin(squares - 2 * (features @ residual))
        chosen[k] = best
        squares[best] = torch.inf
        residual += mean - features[best]
    return chosen
