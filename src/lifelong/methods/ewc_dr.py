"""EWC-DR: Elastic weight consolidation done right for continual learning (Liu & Chang 2026, arXiv 2603.18596)."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from lifelong.importance import mean_power_gradient
from lifelong.importance.estimators import score
from lifelong.methods.guards import check_number
from lifelong.methods.method import Batches, Learned, Params
from lifelong.methods.penalty import Penalty


class EWCDR(Penalty):
    """(λ/2) Σ_i Ω_i (θ_i − θ*_i)² with Ω ← α Ω + (1 − α) F and the latest anchor; α = known classes / total classes.

    F is the Fisher of the reversed logits, the mean of (∂ log softmax(−z)_y/∂θ)² over samples, y the true label. It is
    large where the network is sure of y; EWC's is near zero there. A task whose columns were all there before (as in
    domain-incremental learning, or one that comes again) counts its classes anew: else α would be 1 and its F lost.

    Args:
        num_samples: samples of a task F is computed on, drawn at random; None: all.
    """

    coefficient = 0.5
    state: ClassVar[tuple[str, ...]] = ("anchor", "importance", "seen", "num_classes")
    needs_seen = True

    def __init__(self, strength: float, *, num_samples: int | None = None, **base: Any) -> None:
        super().__init__(strength, **base)
        if num_samples is not None:
            check_number("num_samples", num_samples, low=1, whole=True, other="null")
        self.num_samples = num_samples
        self.seen, self.num_classes = torch.tensor(False), 0

    def importance_of_task(self, learner: Learned, batches: Batches, generator: torch.Generator) -> Params:
        visible = learner.visible

        def reversed_score(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            p = (-z).masked_fill(~visible, -torch.inf).softmax(1)
            return score(p, y).unsqueeze(0), p.new_ones(1, len(p))

        return mean_power_gradient(learner.backbone, batches, reversed_score, power=2)

    def merge(self, new: Params, weights: Params) -> None:
        visible, held = self.learner.visible, self.importance
        unseen = visible & ~self.seen.to(visible.device)
        known, self.seen = self.num_classes, visible | self.seen.to(visible.device)
        again = len(self.task.classes) if self.task else int(visible.sum())
        self.num_classes += int(unseen.sum()) or again
        alpha = known / self.num_classes
        self.importance = {n: alpha * held[n] + (1 - alpha) * F if n in held else F for n, F in new.items()}
        self.anchor = weights
