"""SCP: Sliced Cramér synaptic consolidation, preserving deeply learned representations (Kolouri et al., ICLR 2020)."""

from typing import Any

import torch

from lifelong.importance import sliced_cramer
from lifelong.methods.guards import check_number
from lifelong.methods.method import Batches, Learned, Params
from lifelong.methods.penalty import Penalty


class SCP(Penalty):
    """Γ = mean over directions ξ on the output sphere of (∂(ξ·φ̄)/∂θ)², φ̄ the mean output over the whole task.

    Γ ← α Γ + (1 − α) Γ_new (first task Γ_new), latest anchor. Needs no labels.

    Args:
        slices: "exact" for the expectation over all directions, (1/K) Σ_k (∂φ̄_k/∂θ)²; or how many to draw.
        alpha: α in [0, 1], how much of the past survives each task.
    """

    def __init__(self, strength: float, *, slices: int | str = "exact", alpha: float = 0.5, **base: Any) -> None:
        super().__init__(strength, **base)
        check_number("alpha", alpha, low=0, high=1)
        if slices != "exact":
            check_number("slices", slices, low=1, whole=True, other="exact")
        self.num_slices = None if slices == "exact" else int(slices)
        self.alpha = alpha

    def importance_of_task(self, learner: Learned, batches: Batches, generator: torch.Generator) -> Params:
        options: dict[str, Any] = {"num_slices": self.num_slices, "generator": generator}
        return sliced_cramer(learner.backbone, batches, learner.visible, **options)

    def merge(self, new: Params, weights: Params) -> None:
        held, a = self.importance, self.alpha
        self.importance = {n: a * held[n] + (1 - a) * G if n in held else G for n, G in new.items()}
        self.anchor = weights
