"""How a memory chooses exemplars among the examples of a class.

Legend: B batch, D features, K output columns, N candidates of one class.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lifelong.data.examples import Examples
from lifelong.memory.base import ExemplarMemory, Learned, in_batches

NEAREST = 0.01


class Uniform(ExemplarMemory):
    """Every example of a class is equally likely (Chaudhry et al. 2018, arXiv 1801.10112)."""

    def scores(self, learner: Learned, candidates: Examples) -> Tensor:
        return torch.ones(len(candidates), dtype=torch.float64)


class Entropy(ExemplarMemory):
    """q ∝ H(softmax z) over the visible columns: the less certain the network, the likelier (Chaudhry et al. 2018)."""

    def scores(self, learner: Learned, candidates: Examples) -> Tensor:
        z = in_batches(learner.backbone, learner, candidates)[:, learner.visible.cpu()]
        return torch.special.entr(z.softmax(1)).sum(1)


class PlaneDistance(ExemplarMemory):
    """q ∝ 1/d, d = φ(x)·w_y: the nearer to the decision plane of its own class, the likelier (Chaudhry et al. 2018).

    The paper leaves open what d <= 0 means. Here a distance is |d|: the plane φ·w_y = 0 has two sides, and an example
    far beyond it is no border case but an outlier, which taking d <= 0 as nearest would make the likeliest of all.
    |d| counts as at least NEAREST times the class's median, so that no example is more than 1/NEAREST = 100 times as
    likely as the median one; an example in the plane would else be drawn for certain. Lengths ‖w_y‖ cancel in a class.
    """

    needs = ("features", "head")

    def scores(self, learner: Learned, candidates: Examples) -> Tensor:
        w = learner.backbone.head.weight[candidates.labels[0]]
        return nearness(in_batches(lambda x: learner.backbone.features(x) @ w, learner, candidates))


def nearness(distance: Tensor) -> Tensor:
    """(N,) in (0, 1], ∝ 1/|d| down to |d| = NEAREST · median |d|, and 1 from there on.

    A median of zero leaves no scale: those in the plane are then chosen before the others.
    """
    distance = distance.abs()
    nearest = NEAREST * distance.median()
    return (nearest / distance).nan_to_num(nan=1.0).clamp(max=1.0)


class MeanOfFeatures(ExemplarMemory):
    """The k-th exemplar is argmin_x ‖mean(φ) − (φ(x) + Σ_chosen φ)/k‖ among those not chosen yet; no chance in it.

    iCaRL, algorithm 4 (Rebuffi et al. 2017, arXiv 1611.07725). φ as the head sees it.

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
