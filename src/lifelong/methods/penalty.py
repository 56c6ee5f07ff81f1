"""The pluggable penalty: a Lightning callback that holds each weight by its importance for past tasks.

    c · strength · Σ_i Ω_i (θ_i − θ*_i)²      θ* anchor, Ω importance, c = ½ for the EWC family and 1 elsewhere

A method says how Ω of one task is computed (`importance_of_task`) and how it is folded into what is held (`merge`).
The gradient is analytic: it is added after backward, all-reduce and unscaling, and before clipping.
"""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Protocol

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from lifelong.methods import quadratic
from lifelong.methods.guards import PenaltyError, StabilityWarning, check_importance, check_number

Params = dict[str, Tensor]
Batches = Iterable[tuple[Tensor, Tensor]]
STEPS = ("gradient", "proximal")


class Learned(Protocol):
    """What a penalty may ask of the learner."""

    backbone: nn.Module

    @property
    def visible(self) -> Tensor: ...  # (K,) bool: output columns of the task just learned


class Penalty(Callback):
    """Base of all methods. Exactly one per run.

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
    """Attributes that are saved, restored and moved: tensors, or dicts of tensors keyed by parameter name."""
    cumulative: ClassVar[bool] = False
    """Whether task k is trained on the union of the data of tasks 1..k."""
    num_samples: int | None = None
    """How many samples of a task the importance is computed on (a random subset); None: all."""

    anchor: Params
    importance: Params

    def __init__(self, strength: float, *, step: str = "gradient", exclude: Sequence[str] = ()) -> None:
        check_number("strength", strength, low=0)
        if step not in STEPS:
            raise ValueError(f"method.step must be one of {', '.join(STEPS)}, got {step!r}")
        self.strength, self.step, self.exclude = float(strength), step, tuple(exclude)
        self.anchor, self.importance = {}, {}
        self._before: Params = {}
        self._raw: Params = {}
        self._batches: list[tuple[Tensor, Tensor]] = []

    # What a method defines -----------------------------------------------------------------------------------------

    def importance_of_task(self, learner: Learned, batches: Batches, generator: torch.Generator) -> Params:
        """Ω of the task just learned, a mean over its training samples; keyed by parameter name, shaped as θ."""
        raise NotImplementedError

    def merge(self, new: Params, weights: Params) -> None:
        """Fold a task's importance and final weights into what is held. Default: Ω summed, latest anchor."""
        self.importance = {n: self.importance[n] + w if n in self.importance else w for n, w in new.items()}
        self.anchor = weights

    def before_task(self, weights: Params) -> None:
        """Called when a task starts, before its first step; not again when an interrupted task resumes."""

    def wants_batches(self) -> bool:
        """Whether `before_step` is to be given the batches of the next optimiser step."""
        return False

    def before_step(self, learner: Learned, batches: list[tuple[Tensor, Tensor]]) -> None:
        """Called before each optimiser step, θ still where its gradient was taken, with the (x, y) it was taken on if
        `wants_batches` said so, else with []. A method that does not override it pays nothing for it.

        The step may yet be skipped (16-mixed, an overflow): what counts or averages steps waits for `stepped`.
        """

    def after_step(self, grads: Params, before: Params, after: Params) -> None:
        """Called after each optimiser step with the unregularised task gradient and θ on both sides of the step.

        A method that does not override it pays nothing for it.
        """

    def stepped(self) -> None:
        """Called last after each optimiser step that was made, not after one that was skipped."""

    # What all methods share ----------------------------------------------------------------------------------------

    def held(self, backbone: nn.Module) -> Params:
        """The parameters the penalty may hold, by name: all trainable ones but the excluded.

        Raises:
            ValueError: an excluded prefix matches no parameter, or nothing is left to hold.
        """
        trainable = {n: p for n, p in backbone.named_parameters() if p.requires_grad}
        for prefix in self.exclude:
            if not any(_below(name, prefix) for name in trainable):
                raise ValueError(f"method.exclude must hold prefixes of {', '.join(trainable)}, got {prefix!r}")
        kept: Params = {n: p for n, p in trainable.items() if not any(_below(n, prefix) for prefix in self.exclude)}
        if not kept:
            raise ValueError(f"method.exclude must leave some parameter to hold, got {list(self.exclude)}")
        return kept

    @property
    def active(self) -> bool:
        return self.strength > 0 and bool(self.importance)

    def after_task(self, learner: Learned, batches: Batches, generator: torch.Generator) -> None:
        """Compute the task's importance, check it and fold it in.

        Raises:
            PenaltyError: the importance is not finite, negative somewhere, or zero everywhere.
        """
        held = self.held(learner.backbone)
        new = self.importance_of_task(learner, batches, generator)
        new = {name: new[name] for name in held if name in new}
        weights = {name: p.detach().clone() for name, p in held.items()}
        self.merge(new, weights)
        check_importance(self.importance)

    def value(self, backbone: nn.Module) -> Tensor:
        """The penalty at the current weights, c·strength·Σ Ω (θ − θ*)², a float64 scalar."""
        if not self.active:
            return torch.zeros((), dtype=torch.float64)
        lists = self._lists(dict(backbone.named_parameters()))
        return self.coefficient * self.strength * quadratic.weighted_squared_distance(*lists)

    @torch.no_grad()
    def gradient_norm(self, backbone: nn.Module) -> Tensor:
        """Norm of the gradient of `value` at the current weights, a float64 scalar."""
        if not self.active:
            return torch.zeros((), dtype=torch.float64)
        lists = self._lists(dict(backbone.named_parameters()))
        return quadratic.gradient_norm(*lists, 2 * self.coefficient * self.strength)

    def state_bytes(self) -> int:
        tensors = [t for name in self.state for t in _tensors(getattr(self, name))]
        return sum(t.numel() * t.element_size() for t in tensors)

    def _lists(self, params: Params) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        names = list(self.importance)
        return [params[n] for n in names], [self.anchor[n] for n in names], [self.importance[n] for n in names]

    # When: Lightning's hooks ---------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What was restored lies on the CPU. A task resumed behind its last step comes here, but starts no training."""
        for name in self.state:
            setattr(self, name, _moved(getattr(self, name), pl_module.device))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._params: Params = dict(pl_module.backbone.named_parameters())  # type: ignore[union-attr]
        self._held = self.held(pl_module.backbone)  # type: ignore[arg-type]
        self._watches = type(self).after_step is not Penalty.after_step
        self._prepares = type(self).before_step is not Penalty.before_step
        self._unguarded = self.active
        if trainer.global_step == 0:
            self.before_task({n: p.detach().clone() for n, p in self._held.items()} if self._watches else {})
        self._hooks = [o.register_step_post_hook(self._on_optimizer_stepped) for o in trainer.optimizers]
        groups = [group for o in trainer.optimizers for group in o.param_groups]
        rates = [group.get(key, 0.0) for group in groups for key in ("lr", "initial_lr", "max_lr")]  # of a schedule too
        self.lr_curvature = self._largest_curvature() * max(rates)
        adaptive = all("betas" in group for group in groups)  # Adam's step is lr at most, whatever the gradient's size
        if self.step == "gradient" and self.lr_curvature > 2 and not adaptive:
            rank_zero_warn(
                f"lr · curvature of the penalty is {self.lr_curvature:.3g} > 2: an explicit step overshoots the anchor;"
                " lower method.strength or use method.step=proximal",
                category=StabilityWarning,
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for hook in self._hooks:
            hook.remove()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._prepares and self.wants_batches():
            x, y, *weight = batch
            num = 0 if weight == [0] else len(y)  # of weight 0 is a sample that only keeps this rank in step
            self._batches.append((x[:num], y[:num]))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if self._prepares:
            self.before_step(pl_module, self._batches)  # type: ignore[arg-type]
            self._batches = []
        if self._watches:
            self._raw = {n: _gradient(p).clone() for n, p in self._held.items()}
            self._before = {n: p.detach().clone() for n, p in self._held.items()}
        if self.active and self.step == "gradient":
            params, anchor, importance = self._lists(self._params)
            with torch.no_grad():
                for p in params:
                    p.grad = _gradient(p)
                grads = [p.grad for p in params]
                scale = 2 * self.coefficient * self.strength
                quadratic.add_gradient_(grads, params, anchor, importance, scale)  # type: ignore[arg-type]

    def _on_optimizer_stepped(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Runs only when the optimiser really stepped: a step skipped for an overflow (16-mixed) does not get here."""
        with torch.no_grad():
            if self._unguarded:
                self._guard_first_pull()
            if self.active and self.step == "proximal":
                self._proximal(optimizer)
            if self._watches:
                self.after_step(self._raw, self._before, {n: p.detach() for n, p in self._held.items()})
                self._raw, self._before = {}, {}
            self.stepped()

    def _proximal(self, optimizer: Optimizer) -> None:
        for group in optimizer.param_groups:
            ids = {id(p) for p in group["params"]}
            names = [n for n in self.importance if id(self._params[n]) in ids]
            params, anchor, importance = (
                [held[n] for n in names] for held in (self._params, self.anchor, self.importance)
            )
            quadratic.proximal_step_(params, anchor, importance, group["lr"] * 2 * self.coefficient * self.strength)

    def _guard_first_pull(self) -> None:
        """Once per task, after the first step that moves the weights: the penalty must pull, or it is silently off."""
        params, anchor, importance = self._lists(self._params)
        moved = any(bool((p != a).any()) for p, a in zip(params, anchor, strict=True))
        if not moved:
            return
        self._unguarded = False
        off = sum(
            ((p - a).abs() * w).sum(dtype=torch.float64) for p, a, w in zip(params, anchor, importance, strict=True)
        )
        if float(off) <= 0:  # nan is another matter: the run has diverged, which its loss will tell
            raise PenaltyError(
                "the penalty has no gradient although the weights have left the anchor: it would do nothing"
            )

    def _largest_curvature(self) -> float:
        if not self.active:
            return 0.0
        return 2 * self.coefficient * self.strength * max(float(w.max()) for w in self.importance.values())

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in self.state:
            setattr(self, name, state_dict[name])


def _below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def _gradient(p: Tensor) -> Tensor:
    return torch.zeros_like(p) if p.grad is None else p.grad


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, dict):
        return {k: v.to(device) for k, v in value.items()}
    return value.to(device) if isinstance(value, Tensor) else value


def _tensors(value: Any) -> list[Tensor]:
    return list(value.values()) if isinstance(value, dict) else [value] if isinstance(value, Tensor) else []
