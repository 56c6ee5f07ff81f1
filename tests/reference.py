"""Slow and obvious: float64, loops over single samples, autograd of the formula as written. Shares no code with src.

Shapes: N samples, K classes. `visible` is a list of columns. Results are dicts keyed by parameter name.
"""

import copy

import torch
from torch import Tensor, nn

Params = dict[str, Tensor]


# Importance -------------------------------------------------------------------------------------------------------


def frozen_copy(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).double().eval()


def gradient(model: nn.Module, scalar: Tensor) -> Params:
    """∂ scalar/∂θ for all trainable θ, zero where the scalar does not depend on θ."""
    params = {name: p for name, p in model.named_parameters() if p.requires_grad}
    values = torch.autograd.grad(scalar, list(params.values()), allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(params.items(), values, strict=True)}


def zeros(model: nn.Module) -> Params:
    return {name: torch.zeros_like(p) for name, p in model.named_parameters() if p.requires_grad}


def log_probability(model: nn.Module, x_n: Tensor, y: int, visible: list[int]) -> Tensor:
    z = model(x_n.unsqueeze(0))[0]
    return torch.log_softmax(z[visible], dim=0)[visible.index(y)]


def fisher_exact(model: nn.Module, x: Tensor, visible: list[int]) -> Params:
    """(1/N) Σ_n Σ_y p(y|x_n) (∂ log p(y|x_n)/∂θ)², y over the visible columns."""
    model, x = frozen_copy(model), x.double()
    total = zeros(model)
    for x_n in x:
        for y in visible:
            log_p = log_probability(model, x_n, y, visible)
            for name, g in gradient(model, log_p).items():
                total[name] += log_p.detach().exp() * g**2 / len(x)
    return total


def fisher_of_labels(model: nn.Module, x: Tensor, y: Tensor, visible: list[int]) -> Params:
    """(1/N) Σ_n (∂ log p(y_n|x_n)/∂θ)² for given labels y (N,): empirical, or sampled if y was sampled."""
    model, x = frozen_copy(model), x.double()
    total = zeros(model)
    for x_n, y_n in zip(x, y.tolist(), strict=True):
        for name, g in gradient(model, log_probability(model, x_n, y_n, visible)).items():
            total[name] += g**2 / len(x)
    return total


def mas(model: nn.Module, x: Tensor, visible: list[int]) -> Params:
    """(1/N) Σ_n |∂‖z_n‖²/∂θ|, the norm over the visible columns."""
    model, x = frozen_copy(model), x.double()
    total = zeros(model)
    for x_n in x:
        z = model(x_n.unsqueeze(0))[0, visible]
        for name, g in gradient(model, (z**2).sum()).items():
            total[name] += g.abs() / len(x)
    return total


def sliced_cramer(model: nn.Module, x: Tensor, visible: list[int], slices: Tensor) -> Params:
    """(1/L) Σ_l (∂(ξ_l · φ̄)/∂θ)² with φ̄ = (1/N) Σ_n z_n, slices ξ (L, number of visible columns)."""
    model, x, slices = frozen_copy(model), x.double(), slices.double()
    total = zeros(model)
    for xi in slices:
        mean_output = torch.stack([model(x_n.unsqueeze(0))[0, visible] for x_n in x]).mean(0)
        for name, g in gradient(model, xi @ mean_output).items():
            total[name] += g**2 / len(slices)
    return total


def sliced_cramer_exact(model: nn.Module, x: Tensor, visible: list[int]) -> Params:
    """(1/K) Σ_k (∂φ̄_k/∂θ)², k over the visible columns: the slices are the axes."""
    return sliced_cramer(model, x, visible, torch.eye(len(visible)))
