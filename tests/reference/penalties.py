"""Penalties, and the importances that methods gather on the way.

Shapes: θ, anchors and importances as lists of tensors in one order, or flat (P,); S steps, T tasks.
"""

import torch
from torch import Tensor

Tensors = list[Tensor]


def penalty_value(params: Tensors, anchor: Tensors, importance: Tensors, *, c: float, strength: float) -> Tensor:
    """c · strength · Σ_i Ω_i (θ_i − θ*_i)² in float64, differentiable in θ."""
    total = torch.zeros((), dtype=torch.float64)
    for theta, star, omega in zip(params, anchor, importance, strict=True):
        total = total + (omega.double() * (theta.double() - star.double()) ** 2).sum()
    return c * strength * total


def penalty_gradient(params: Tensors, anchor: Tensors, importance: Tensors, *, c: float, strength: float) -> Tensors:
    """∂ penalty_value/∂θ by autograd, float64."""
    theta = [p.detach().double().requires_grad_() for p in params]
    return list(torch.autograd.grad(penalty_value(theta, anchor, importance, c=c, strength=strength), theta))


def kronecker_value(departures: Tensors, pairs: list[list[tuple[Tensor, Tensor]]]) -> Tensor:
    """Σ_layers Σ_pairs vec(ΔW)ᵀ (G ⊗ A) vec(ΔW), ΔW (O, D) of each layer, by the dense matrix; differentiable."""
    total = torch.zeros((), dtype=torch.float64)
    for departure, own in zip(departures, pairs, strict=True):
        for A, G in own:
            total = total + departure.flatten() @ torch.kron(G.double(), A.double()) @ departure.flatten()
    return total


def sum_of_quadratics(theta: Tensor, anchors: Tensor, importances: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_j Σ_i F^j_i (θ_i − θ^j_i)² and its gradient in θ; theta (P,), anchors and importances (T, P)."""
    theta = theta.detach().double().requires_grad_()
    value = torch.zeros((), dtype=torch.float64)
    for anchor, importance in zip(anchors, importances, strict=True):
        value = value + (importance.double() * (theta - anchor.double()) ** 2).sum()
    return value.detach(), torch.autograd.grad(value, theta)[0]


def minimiser_of_quadratics(centres: Tensor, curvatures: Tensor) -> Tensor:
    """argmin_θ Σ_j ½ h^j (θ − μ^j)², elementwise; centres μ and curvatures h (T, P)."""
    weighted = torch.zeros_like(centres[0])
    total = torch.zeros_like(centres[0])
    for centre, curvature in zip(centres, curvatures, strict=True):
        weighted = weighted + curvature * centre
        total = total + curvature
    return weighted / total


def laplace_posterior(curvatures: list[Tensor], gamma: float) -> Tensor:
    """Ω_k = γ Ω_{k−1} + F_k, Ω_0 = 0."""
    omega = torch.zeros_like(curvatures[0])
    for curvature in curvatures:
        omega = gamma * omega + curvature
    return omega


def moving_average(values: Tensors, alpha: float) -> Tensor:
    """F^t = α F_batch + (1 − α) F^{t−1}, F^0 = 0."""
    average = torch.zeros_like(values[0])
    for value in values:
        average = alpha * value + (1 - alpha) * average
    return average


def normalised(values: list[float]) -> list[float]:
    """(x − min)/(max − min)."""
    low, high = min(values), max(values)
    return [(value - low) / (high - low) for value in values]


def path_integral(gradients: Tensor, weights: Tensor) -> Tensor:
    """ω_i = −Σ_t g_i(θ_t) (θ_{t+1} − θ_t)_i; gradients (S, P) at weights (S + 1, P)."""
    omega = torch.zeros(gradients.shape[1], dtype=torch.float64)
    for t in range(len(gradients)):
        for i in range(gradients.shape[1]):
            omega[i] -= gradients[t, i].double() * (weights[t + 1, i].double() - weights[t, i].double())
    return omega


def synaptic_intelligence(omega_before: Tensor, path: Tensor, start: Tensor, end: Tensor, damping: float) -> Tensor:
    """relu(Ω + ω/((θ_end − θ_start)² + ξ)), flat."""
    new = [float(o + w / ((e - s) ** 2 + damping)) for o, w, s, e in zip(omega_before, path, start, end, strict=True)]
    return torch.tensor([max(value, 0.0) for value in new], dtype=torch.float64)


def of_window(fishers: Tensor, interval: int, window: str) -> Tensor:
    """Of a task's steps so far: the last, the mean of the interval's, or the sum of all over the interval's length."""
    if window == "step":
        return fishers[-1]
    return (fishers[-interval:] if window == "interval" else fishers).sum(0) / interval


class Walk:
    """RWalk as the paper has it: one weight after the other, plain numbers. Fed one optimiser step at a time."""

    def __init__(
        self, num_weights: int, *, alpha: float, interval: int, damping: float, factor: float = 0.5, decay: float = 0.5
    ) -> None:
        """factor: of F Δθ² in the denominator; decay: of the tasks before in the score."""
        self.alpha, self.interval, self.damping, self.factor, self.decay = alpha, interval, damping, factor, decay
        self.fisher = [0.0] * num_weights
        self.score: list[float] = []
        self.tasks = 0

    def task(self, gradients: Tensor, weights: Tensor, fishers: dict[int, Tensor]) -> None:
        """gradients (S, P) at weights (S + 1, P); fishers[t] (P,): F of the batch of step t, for each t that ends
        an interval (counted from 1)."""
        num_steps, num_weights = gradients.shape
        score = [0.0] * num_weights
        first = 0
        for t in range(1, num_steps + 1):
            ends = t % self.interval == 0
            if not ends and t < num_steps:
                continue
            for i in range(num_weights):
                drop = -sum(float(gradients[u, i] * (weights[u + 1, i] - weights[u, i])) for u in range(first, t))
                move = float(weights[t, i] - weights[first, i])
                score[i] += max(0.0, drop / (self.factor * self.fisher[i] * move**2 + self.damping))
                if ends:
                    self.fisher[i] = self.alpha * float(fishers[t][i]) + (1 - self.alpha) * self.fisher[i]
            first = t
        if self.tasks:
            score = [self.decay * a + 0.5 * b for a, b in zip(self.score, score, strict=True)]
        self.score = score
        self.tasks += 1

    def importance(self) -> Tensor:
        both = zip(normalised(self.fisher), normalised(self.score), strict=True)
        return torch.tensor([f + s for f, s in both], dtype=torch.float64)
