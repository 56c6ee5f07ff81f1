"""A penalty: it holds each weight by its importance for past tasks.

    c · strength · q(θ),     q(θ) = Σ_i Ω_i (θ_i − θ*_i)²     θ* anchor, Ω importance, c = ½ for the EWC family, else 1

A method says how Ω of one task is computed (`importance_of_task`) and how it is folded into what is held (`merge`).
The gradient is analytic: it is added after backward, the mean over ranks and unscaling, and before clipping.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from lifelong.data.stream import Task
from lifelong.methods.guards import ImportanceWarning, StabilityWarning, check_choice, check_importance, check_number
from lifelong.methods.method import Batches, Learned, Method, Params
from lifelong.methods.quadratic import Diagonal, Quadratic


class Penalty(Method):
    """Base of the methods that hold weights by a quadratic.

    Args:
        strength: the paper's λ, a number >= 0; 0 is bit-identical to fine-tuning.
        step: "gradient" adds the penalty's gradient to the task's; "proximal" pulls the weights towards the anchor
            after the optimiser's step, θ ← (θ + aθ*)/(1 + a), a = lr·2c·strength·Ω, which is stable at any strength.
        exclude: prefixes of parameter names of the backbone that are left free, e.g. ("head",).

    Raises:
        ValueError: a setting outside what is allowed.
    """

    coefficient: ClassVar[float] = 1.0
    """c of the formula above."""
    state: ClassVar[tuple[str, ...]] = ("anchor", "importance")
    signed: bool = False
    """Whether Ω may be negative: the penalty then repels some weights from the anchor."""

    anchor: Params
    importance: Params

    def __init__(self, strength: float, *, step: str = "gradient", exclude: Sequence[str] = ()) -> None:
        check_number("strength", strength, low=0)
        check_choice("step", step, ("gradient", "proximal"))
        self.strength, self.step, self.exclude = float(strength), step, tuple(exclude)
        self.anchor, self.importance = {}, {}
        self._guarded = True

    # What a method defines -----------------------------------------------------------------------------------------

    def importance_of_task(self, learner: Learned, batches: Batches, generator: torch.Generator) -> Params:
        """Ω of the task just learned, a mean over its training samples; keyed by parameter name, shaped as θ."""
        raise NotImplementedError

    def merge(self, new: Params, weights: Params) -> None:
        """Fold a task's importance and final weights into what is held. Default: Ω summed, latest anchor."""
        self.importance = {n: self.importance[n] + w if n in self.importance else w for n, w in new.items()}
        self.anchor = weights

    def alone(self, new: Params) -> Params:
        """Ω >= 0 of the task by itself, from what `importance_of_task` returned, before decay or a ceiling."""
        return new

    @property
    def quadratic(self) -> Quadratic:
        """q of the formula above."""
        return Diagonal(self.anchor, self.importance)

    # What all penalties share --------------------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        return self.strength > 0 and bool(self.anchor)

    @property
    def scale(self) -> float:
        """2c · strength, the factor of ½ ∂q/∂θ."""
        return 2 * self.coefficient * self.strength

    def edit_gradients(self, grads: Params) -> None:
        if self.step == "gradient":
            self.quadratic.add_gradient_(grads, self._params, self.scale)

    def after_task(self, task: Task, batches: Batches) -> None:
        """Compute the task's importance, check it and fold it in.

        Raises:
            PenaltyError: the importance is not finite or negative, or zero everywhere although the task had a gradient.
        """
        found = self.importance_of_task(self.learner, batches, self.draws)
        weights = self.weights()
        new = {name: found[name] for name in weights if name in found}
        if self.keeps_importance:
            self.task_importance = self.alone(new)
        self.merge(new, weights)
        if self.strength > 0:
            check_importance(self.importance_shown, self.penalised(self.learner.backbone), signed=self.signed)

    def value(self, backbone: nn.Module) -> Tensor:
        """The penalty at the current weights, c·strength·q(θ), a float64 scalar."""
        if not self.active:
            return torch.zeros((), dtype=torch.float64)
        return self.coefficient * self.strength * self.quadratic.value(dict(backbone.named_parameters()))

    @torch.no_grad()
    def gradient_norm(self, backbone: nn.Module) -> Tensor:
        """Norm of the gradient of `value` at the current weights, a float64 scalar."""
        if not self.active:
            return torch.zeros((), dtype=torch.float64)
        return self.scale * self.quadratic.gradient_norm(dict(backbone.named_parameters()))

    def measures(self, learner: Learned) -> dict[str, float]:
        """The penalty at the weights the step starts from, ‖∇penalty‖/‖∇task‖ (nan where the task has no gradient), and
        lr · curvature of the penalty."""
        ratio = 0.0
        if self.active:
            grads = [g for p in self.penalised(learner.backbone).values() if (g := p.grad) is not None]
            task = float(torch.nn.utils.get_total_norm(grads)) if grads else 0.0
            ratio = float(self.gradient_norm(learner.backbone)) / task if task > 0 else math.nan
        value = float(self.value(learner.backbone))
        return {"penalty": value, "penalty_gradient_ratio": ratio, "lr_curvature": self.lr_curvature}

    @property
    def importance_shown(self) -> Params:
        return self.importance

    # When: Lightning's hooks ---------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._guarded = not self.active
        groups = [group for o in trainer.optimizers for group in o.param_groups]
        rates = [group.get(key, 0.0) for group in groups for key in ("lr", "initial_lr", "max_lr")]  # of a schedule too
        self.lr_curvature = self.scale * self.quadratic.largest_curvature() * max(rates) if self.active else 0.0
        adaptive = all("betas" in group for group in groups)  # Adam's step is lr at most, whatever the gradient's size
        if self.step == "gradient" and self.lr_curvature > 2 and not adaptive:
            rank_zero_warn(
                f"lr · curvature of the penalty is {self.lr_curvature:.3g} > 2: an explicit step overshoots the anchor;"
                " lower method.strength or use method.step=proximal",
                category=StabilityWarning,
            )

    def _on_stepped(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        with torch.no_grad():
            if not self._guarded:
                self._guard_first_pull()
            if self.active and self.step == "proximal":
                self._proximal(optimizer)
        super()._on_stepped(optimizer, args, kwargs)

    def _proximal(self, optimizer: Optimizer, num_steps: int = 1) -> None:
        for group in optimizer.param_groups:
            ids = {id(p) for p in group["params"]}
            names = {n for n, p in self._params.items() if id(p) in ids}
            self.quadratic.proximal_step_(self._params, num_steps * group["lr"] * self.scale, names)

    def _guard_first_pull(self) -> None:
        """Warn, once per task and after the first step that moves the weights, of a penalty that does not pull."""
        if not any(bool((self._params[n] != a).any()) for n, a in self.anchor.items()):
            return
        self._guarded = True
        if float(self.gradient_norm(self.learner.backbone)) <= 0:  # nan is another matter: the loss will tell
            rank_zero_warn(
                "the penalty has no gradient although the weights have left the anchor: all that has moved has zero"
                " importance (as where the tasks share no weights but a head of their own each)",
                category=ImportanceWarning,
            )
