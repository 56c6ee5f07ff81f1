"""SI: Continual learning through synaptic intelligence (Zenke et al. 2017, arXiv 1703.04200)."""

from typing import Any

import torch

from lifelong.data.stream import Task
from lifelong.methods import quadratic
from lifelong.methods.guards import check_number
from lifelong.methods.method import Batches, Learned, Params
from lifelong.methods.penalty import Penalty


class SI(Penalty):
    """Ω: each weight's share ω in the drop of the task loss along the path, over its squared move.

    During a task ω ← ω − g Δθ at every step, g the unregularised gradient at the point before the step and Δθ the step
    really taken. After it Ω ← relu(Ω + ω/((θ_end − θ_start)² + ξ)).

    Args:
        damping: ξ > 0.
    """

    state = ("anchor", "importance", "path", "start")
    watches_path = True

    def __init__(self, strength: float, *, damping: float = 0.1, **base: Any) -> None:
        super().__init__(strength, **base)
        check_number("damping", damping, low=0, above=True)
        self.damping = damping
        self.path: Params = {}
        self.start: Params = {}

    def before_task(self, task: Task) -> None:
        self.begin(self.weights())

    def begin(self, weights: Params) -> None:
        """Start the path at these weights."""
        self.start = weights
        self.path = {name: torch.zeros_like(w) for name, w in weights.items()}

    def after_step(self, grads: Params, before: Params, after: Params) -> None:
        path, g, old, new = (list(params.values()) for params in (self.path, grads, before, after))
        quadratic.add_weighted_difference_(path, new, old, g, -1)

    def importance_of_task(self, learner: Learned, batches: Batches, generator: torch.Generator) -> Params:
        """ω/((θ_end − θ_start)² + ξ), of either sign."""
        end = dict(learner.backbone.named_parameters())
        return {n: w / ((end[n].detach() - self.start[n]).square() + self.damping) for n, w in self.path.items()}

    def alone(self, new: Params) -> Params:
        return {n: torch.relu(w) for n, w in new.items()}

    def merge(self, new: Params, weights: Params) -> None:
        self.importance = {n: torch.relu(w + self.importance.get(n, torch.zeros_like(w))) for n, w in new.items()}
        self.anchor, self.path, self.start = weights, {}, {}
