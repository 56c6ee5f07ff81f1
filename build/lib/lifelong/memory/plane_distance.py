"""Plane-distance sampling of exemplars (Chaudhry et al. 2018, arXiv 1801.10112)."""

from torch import Tensor

from lifelong.data.examples import Examples
from lifelong.memory.base import ExemplarMemory, Learned, in_batches

NEAREST = 0.01


class PlaneDistance(ExemplarMemory):
    """q ∝ 1/d, d = φ(x)·w_y: the nearer to the decision plane of its own class, the likelier.

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
