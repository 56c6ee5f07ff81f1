"""Quadratics that a penalty holds the weights by: value, gradient, proximal step; in place, no autograd graph.

The functions below take lists of tensors in one order: params θ, anchor θ*, importance Ω (equal shapes, Ω >= 0).
A `scale` is a number, or a tensor (S,) for parameters stacked along a leading dimension of size S.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Params = Mapping[str, Tensor]
Tensors = list[Tensor]
Scale = float | Tensor


class Quadratic(Protocol):
    """q(θ) >= 0, zero at the anchor. `params` holds at least the parameters that q depends on, by name."""

    def value(self, params: Params) -> Tensor:
        """q, a float64 scalar."""

    def gradient_norm(self, params: Params) -> Tensor:
        """‖½ ∂q/∂θ‖, a float64 scalar."""

    def add_gradient_(self, grads: Params, params: Params, scale: Scale) -> None:
        """grads += scale · ½ ∂q/∂θ."""

    def proximal_step_(self, params: Params, scale: Scale, names: Collection[str]) -> None:
        """θ ← argmin over θ' of ½‖θ' − θ‖² + scale · ½ q(θ'), for the parameters of these names."""

    def largest_curvature(self) -> float:
        """Largest eigenvalue of ½ ∂²q/∂θ²."""


@dataclass(frozen=True)
class Diagonal:
    """q = Σ_i Ω_i (θ_i − θ*_i)². anchor θ* and importance Ω by parameter name."""

    anchor: Params
    importance: Params

    def _lists(self, params: Params, names: Collection[str]) -> tuple[Tensors, Tensors, Tensors]:
        return [params[n] for n in names], [self.anchor[n] for n in names], [self.importance[n] for n in names]

    def value(self, params: Params) -> Tensor:
        return weighted_squared_distance(*self._lists(params, self.importance.keys()))

    def gradient_norm(self, params: Params) -> Tensor:
        return gradient_norm(*self._lists(params, self.importance.keys()), 1.0)

    def add_gradient_(self, grads: Params, params: Params, scale: Scale) -> None:
        names = self.importance.keys()
        add_gradient_([grads[n] for n in names], *self._lists(params, names), scale)

    def proximal_step_(self, params: Params, scale: Scale, names: Collection[str]) -> None:
        proximal_step_(*self._lists(params, [n for n in self.importance if n in names]), scale)

    def largest_curvature(self) -> float:
        return max((float(w.max()) for w in self.importance.values()), default=0.0)


def _along_leading(scale: Tensor, like: Tensor) -> Tensor:
    return scale.reshape(-1, *[1] * (like.dim() - 1))


def weighted_squared_distance(params: Tensors, anchor: Tensors, importance: Tensors) -> Tensor:
    """Σ_i Ω_i (θ_i − θ*_i)², a scalar in float64 (sums over millions of weights lose digits in float32)."""
    terms = [
        ((p.detach() - a).square_().mul_(w)).sum(dtype=torch.float64)
        for p, a, w in zip(params, anchor, importance, strict=True)
    ]
    return torch.stack(terms).sum()


def add_gradient_(grads: Tensors, params: Tensors, anchor: Tensors, importance: Tensors, scale: Scale) -> None:
    """grads += scale · Ω (θ − θ*). With scale = 2c·strength this is the gradient of c·strength·Σ Ω (θ − θ*)²."""
    add_weighted_difference_(grads, params, anchor, importance, scale)


def add_weighted_difference_(totals: Tensors, new: Tensors, old: Tensors, weights: Tensors, scale: Scale) -> None:
    """totals += scale · weights (new − old), tensor by tensor on a CPU: the difference is then still in its cache."""
    size = len(totals) if totals and totals[0].is_cuda else 1
    for start in range(0, len(totals), size):
        part = slice(start, start + size)
        difference = torch._foreach_sub(new[part], old[part])
        if isinstance(scale, Tensor):
            torch._foreach_mul_(difference, [_along_leading(scale, d) for d in difference])
        value = 1.0 if isinstance(scale, Tensor) else scale
        torch._foreach_addcmul_(totals[part], difference, weights[part], value=value)


def gradient_norm(params: Tensors, anchor: Tensors, importance: Tensors, scale: float) -> Tensor:
    """‖scale · Ω (θ − θ*)‖, a float64 scalar; one tensor at a time, so that no second P-sized vector is made."""
    each = zip(params, anchor, importance, strict=True)
    squares = [(w * (p - a)).square().sum(dtype=torch.float64) for p, a, w in each]
    return scale * torch.stack(squares).sum().sqrt()


def proximal_step_(params: Tensors, anchor: Tensors, importance: Tensors, scale: Scale) -> None:
    """θ ← (θ + aθ*)/(1 + a), a = scale · Ω: the implicit step of size lr on the penalty when scale = lr·2c·strength.

    Written θ ← θ + (a/(1 + a))(θ* − θ), so that it is exact at the anchor and finite for any a, a = inf included.
    """
    for p, a, w in zip(params, anchor, importance, strict=True):
        pull = w * (_along_leading(scale, w) if isinstance(scale, Tensor) else scale)
        pull = torch.where(torch.isinf(pull), torch.ones_like(pull), pull.div_(pull + 1))
        p.add_(pull.mul_(a - p))


def merge_quadratics(
    anchor: Tensor, importance: Tensor, new_anchor: Tensor, new_importance: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Σ_j F^j (θ − θ^j)² as one quadratic A (θ − μ)² + constant: fold the next term in.

    Returns (μ, A, increment of the constant, a float64 scalar). A ← A + F, μ ← μ + (F/A)(θ^k − μ) with μ unchanged
    where A = 0, and the constant grows by Σ F (A − F)/A (θ^k − μ_old)².
    """
    total = importance + new_importance
    share = torch.where(total > 0, new_importance / total, torch.zeros_like(total))
    shift = new_anchor - anchor
    increment = (share * importance * shift.square()).sum(dtype=torch.float64)
    return anchor + share * shift, total, increment
