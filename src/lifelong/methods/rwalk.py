"""RWalk: Riemannian walk for incremental learning (Chaudhry et al. 2018, arXiv 1801.10112)."""

from typing import Any

import torch

from lifelong.data.stream import Task
from lifelong.methods import quadratic
from lifelong.methods.ewcpp import EWCPP, min_max_normalised
from lifelong.methods.guards import check_number
from lifelong.methods.method import Batches, Learned, Params


class RWalk(EWCPP):
    """λ Σ_i (F̃_i + s̃_i)(θ_i − θ*_i)²: EWC++'s Fisher plus a path score measured in KL distance, latest anchor.

    s_i = Σ_intervals relu(ΔL_i/(½ F_i Δθ_i² + ε)), ΔL_i = −Σ g_i Δθ_i over the interval's steps with the unregularised
    g, Δθ_i the move over the whole interval, F as it was before the interval's own update. At an interval's end: score,
    then F, then snapshot; an interval that a task's end cuts short is scored too. After a task s ← ½(s_prev + s_task),
    the first s_task whole. F and s are each min–max normalised over all parameters together.
    The paper's third part, exemplars, is memory=….

    Args:
        alpha, interval (Δt), labels, window: as in EWC++.
        damping: ε > 0.
        half: whether the denominator has its ½; A-GEM's code has none.
        decay: of earlier tasks' score, in s ← decay s_prev + ½ s_task; A-GEM's code has 1.5.
    """

    coefficient = 1.0
    state = (*EWCPP.state, "drop", "snapshot", "score", "score_before")
    watches_path = True

    def __init__(
        self, strength: float, *, damping: float = 1e-3, half: bool = True, decay: float = 0.5, **ewcpp: Any
    ) -> None:
        super().__init__(strength, **ewcpp)
        check_number("damping", damping, low=0, above=True)
        check_number("decay", decay, low=0)
        self.damping, self.half, self.decay = damping, half, decay
        self.drop: Params = {}
        self.snapshot: Params = {}
        self.score: Params = {}
        self.score_before: Params = {}

    def before_task(self, task: Task) -> None:
        self.begin(self.weights())

    def begin(self, weights: Params) -> None:
        """Start path and first interval at these weights."""
        super().begin(weights)
        self.snapshot = weights
        self.drop = {n: torch.zeros_like(w) for n, w in weights.items()}
        self.score = {n: torch.zeros_like(w) for n, w in weights.items()}

    def after_step(self, grads: Params, before: Params, after: Params) -> None:
        drop, g, old, new = (list(params.values()) for params in (self.drop, grads, before, after))
        quadratic.add_weighted_difference_(drop, new, old, g, -1)
        if self.fresh and self.ends_interval:
            self.end_interval(after)
        super().after_step(grads, before, after)

    def end_interval(self, weights: Params) -> None:
        """Score the interval against F as it stands and start the next one here."""
        for n, drop in self.drop.items():  # in place: new pages at each interval cost more than the arithmetic
            distance = self.snapshot[n].sub_(weights[n]).square_()
            if n in self.fisher:
                distance.mul_(self.fisher[n]).mul_(0.5 if self.half else 1.0).add_(self.damping)
            else:
                distance.fill_(self.damping)
            self.score[n].add_(drop.div_(distance).relu_())
            drop.zero_()
            distance.copy_(weights[n])

    def importance_of_task(self, learner: Learned, batches: Batches, generator: torch.Generator) -> Params:
        self.end_interval({n: p.detach() for n, p in self.penalised(learner.backbone).items()})
        before = self.score_before
        score = {n: self.decay * before[n] + 0.5 * s if n in before else s for n, s in self.score.items()}
        F = super().importance_of_task(learner, batches, generator)
        self.score_before, self.drop, self.snapshot = score, {}, {}
        return {n: F[n] + s for n, s in min_max_normalised(score).items()}

    def alone(self, new: Params) -> Params:
        """F̃ + s̃ with s = s_task, no mean with the tasks before; F is the moving average as it stands."""
        F = min_max_normalised({n: self.fisher[n] for n in new})
        return {n: F[n] + s for n, s in min_max_normalised(self.score).items()}

    def merge(self, new: Params, weights: Params) -> None:
        super().merge(new, weights)
        self.score = {}
