"""SI: Continual learning through synaptic intelligence (Zenke et al. 2017, arXiv 1703.04200)."""

from typing import Any, ClassVar

import torch

from lifelong.data.stream import Task
from lifelong.methods import quadratic
from lifelong.methods.guards import check_choice, check_number
from lifelong.methods.method import Batches, Learned, Params
from lifelong.methods.penalty import Penalty


class SI(Penalty):
    """Ω: each weight's share ω in the drop of the task loss along the path, over its squared move.

    During a task ω ← ω − g Δθ at every step, g the unregularised gradient at the point before the step and Δθ the step
    really taken. After it Ω ← relu(Ω + ω/((θ_end − θ_start)² + ξ)). What published code does otherwise is an option.

    Args:
        damping: ξ > 0.
        gradient: "task" as above; "total" (van de Ven): g is that of the loss with the penalty.
        clamp: True: relu around the sum, as above; "task" (A-GEM): around what a task adds; False (van de Ven, Hsu): no
            relu, and a weight with Ω < 0 is pushed away from its anchor.
        reference: "start" as above; "zero" (Zenke's code): the first task's θ_start is 0, so its move is θ_end.
        ceiling: the largest Ω of a weight, or None; its sum over tasks has none. Avalanche's code: 1e-3.
    """

    state: ClassVar[tuple[str, ...]] = ("anchor", "importance", "path", "start")
    watches_path = True

    def __init__(
        self,
        strength: float,
        *,
        damping: float = 0.1,
        gradient: str = "task",
        clamp: bool | str = True,
        reference: str = "start",
        ceiling: float | None = None,
        **base: Any,
    ) -> None:
        super().__init__(strength, **base)
        check_number("damping", damping, low=0, above=True)
        check_choice("gradient", gradient, ("task", "total"))
        check_choice("clamp", clamp, (True, "task", False))
        check_choice("reference", reference, ("start", "zero"))
        if ceiling is not None:
            check_number("ceiling", ceiling, low=0, above=True)
            self.state = (*self.state, "total")  # type: ignore[misc]
        if self.step == "proximal" and (gradient == "total" or clamp is False):
            raise ValueError("method.step must be gradient with method.gradient=total or clamp=false, got 'proximal'")
        self.damping, self.gradient, self.clamp, self.reference = damping, gradient, clamp, reference
        self.signed, self.ceiling = clamp is False, ceiling
        self.total: Params = {}  # Ω without its ceiling
        self.path: Params = {}
        self.start: Params = {}

    def before_task(self, task: Task) -> None:
        weights = self.weights()
        first = self.reference == "zero" and not self.anchor
        self.begin({n: torch.zeros_like(w) for n, w in weights.items()} if first else weights)

    def begin(self, weights: Params) -> None:
        """Start the path at these weights."""
        self.start = weights
        self.path = {name: torch.zeros_like(w) for name, w in weights.items()}

    def after_step(self, grads: Params, before: Params, after: Params) -> None:
        if self.gradient == "total" and self.anchor:
            self.quadratic.add_gradient_(grads, before, self.scale)
        path, g, old, new = (list(params.values()) for params in (self.path, grads, before, after))
        quadratic.add_weighted_difference_(path, new, old, g, -1)

    def importance_of_task(self, learner: Learned, batches: Batches, generator: torch.Generator) -> Params:
        """ω/((θ_end − θ_start)² + ξ), of either sign."""
        end = dict(learner.backbone.named_parameters())
        return {n: w / ((end[n].detach() - self.start[n]).square() + self.damping) for n, w in self.path.items()}

    def alone(self, new: Params) -> Params:
        return {n: torch.relu(w) for n, w in new.items()}

    def merge(self, new: Params, weights: Params) -> None:
        own = {n: torch.relu(w) for n, w in new.items()} if self.clamp == "task" else new
        held = self.importance if self.ceiling is None else self.total
        total = {n: w + held.get(n, torch.zeros_like(w)) for n, w in own.items()}
        total = {n: torch.relu(w) for n, w in total.items()} if self.clamp is True else total
        if self.ceiling is None:
            self.importance = total
        else:
            self.total, self.importance = total, {n: w.clamp(max=self.ceiling) for n, w in total.items()}
        self.anchor, self.path, self.start = weights, {}, {}
