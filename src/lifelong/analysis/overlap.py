"""What the importances of tasks share. Legend: T tasks, P penalised weights, L layers; Ω (P,) >= 0 of one task."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

TOP, MASS = 0.1, 0.9
"""Share of the weights that are a task's top; share of a task's total importance that the weights it claims hold."""


def overlap(importances: Sequence[Mapping[str, Tensor]]) -> dict[str, Any]:
    """All measures of T tasks' own importances, by parameter name, as plain lists; nan where Ω of a task is zero.

    cosine: (T, T). top_share: (T, T), see `shared`. claimed: (T,) share of the P weights that are claimed by this or an
    earlier task; claims: (T,) by the task itself; see `holding`. layers: L names; by_layer: (T, L) shares of the total.
    """
    omegas = [torch.cat([omega.flatten() for omega in each.values()]) for each in importances]
    tops = torch.stack([top(omega, TOP) for omega in omegas])
    held = torch.stack([holding(omega, MASS) for omega in omegas])
    so_far = held.cumsum(0) > 0
    layers, by_layer = layer_shares(importances)
    return {
        "cosine": cosine(omegas).tolist(),
        "top_share": shared(tops).tolist(),
        "claimed": so_far.double().mean(1).tolist(),
        "claims": held.double().mean(1).tolist(),
        "layers": layers,
        "by_layer": by_layer.tolist(),
    }


def cosine(omegas: Sequence[Tensor]) -> Tensor:
    """(T, T) float64: cosine of the angle between the importances of two tasks."""
    products = torch.tensor([[float(a.double() @ b.double()) for b in omegas] for a in omegas], dtype=torch.float64)
    norms = products.diagonal().sqrt()
    return products / norms.outer(norms)


def top(omega: Tensor, share: float) -> Tensor:
    """(P,) bool: the weights of the largest importance, ceil(share · P) of them, or all that are positive if those are
    fewer: a weight of no importance is nobody's top."""
    chosen = torch.zeros_like(omega, dtype=torch.bool)
    chosen[omega.topk(math.ceil(share * len(omega))).indices] = True
    return chosen & (omega > 0)


def shared(sets: Tensor) -> Tensor:
    """(T, T) float64: the share of the weights in set i that are in set j, of sets (T, P) bool."""
    common = sets.double() @ sets.double().T
    return common / common.diagonal().unsqueeze(1)


def holding(omega: Tensor, mass: float) -> Tensor:
    """(P,) bool: the fewest weights that hold this share of the total importance."""
    order = omega.argsort(descending=True)
    before = omega[order].double().cumsum(0) - omega[order].double()
    chosen = torch.zeros_like(omega, dtype=torch.bool)
    chosen[order[before < mass * omega.sum(dtype=torch.float64)]] = True
    return chosen


def layer_shares(importances: Sequence[Mapping[str, Tensor]]) -> tuple[list[str], Tensor]:
    """Names of the L layers, and (T, L) float64: the share of each task's total importance that lies in each.

    A layer is the module that parameters belong to: body.1.weight and body.1.bias are body.1.
    """
    layers = list(dict.fromkeys(name.rpartition(".")[0] or name for name in importances[0]))
    totals = torch.zeros(len(importances), len(layers), dtype=torch.float64)
    for i, each in enumerate(importances):
        for name, omega in each.items():
            totals[i, layers.index(name.rpartition(".")[0] or name)] += omega.sum(dtype=torch.float64).cpu()
    return layers, totals / totals.sum(1, keepdim=True)
