"""What distillation, replay and isolation compute, for N samples of K classes or for gradients (P,)."""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from reference.importance import log_probability

# Distillation -----------------------------------------------------------------------------------------------------


def distillation(
    z: Tensor, z_old: Tensor, heads: list[list[int]], temperature: float, beside: Sequence[int] = ()
) -> Tensor:
    """Σ over heads of the mean over samples of Σ_c p_old log(p_old/p), p_old = softmax(z_old/T) over a head's columns,
    p = softmax(z/T) over these and those `beside` them."""
    total = 0.0
    for new, old in zip(z.tolist(), z_old.tolist(), strict=True):
        for head in heads:
            weights, olds = ([math.exp(row[c] / temperature) for c in head] for row in (new, old))
            others = sum(math.exp(new[c] / temperature) for c in beside)
            for w, w_old in zip(weights, olds, strict=True):
                p, p_old = w / (sum(weights) + others), w_old / sum(olds)
                total += p_old * math.log(p_old / p)
    return torch.tensor(total / len(z), dtype=torch.float64)


def distilled_binary_cross_entropy(
    z: Tensor, z_old: Tensor, y: Tensor, old: list[int], new: list[int], T: float = 1.0
) -> Tensor:
    """(1/N) Σ_n −Σ_c q log σ(z_c) + (1 − q) log(1 − σ(z_c)): q = σ(z_old/T) of an old column, one-hot of a new one."""

    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    total = 0.0
    for row, row_old, label in zip(z.tolist(), z_old.tolist(), y.tolist(), strict=True):
        for c in [*old, *new]:
            q = sigmoid(row_old[c] / T) if c in old else float(c == label)
            total -= q * math.log(sigmoid(row[c])) + (1 - q) * math.log(1 - sigmoid(row[c]))
    return torch.tensor(total / len(z), dtype=torch.float64)


def nearest_mean(features: Tensor, exemplars: dict[int, Tensor]) -> list[int]:
    """argmin_c ‖φ/‖φ‖ − μ_c‖, μ_c the mean of φ/‖φ‖ over the exemplars (m, D) of the class, of length 1 again."""
    means = {c: sum(phi / phi.norm() for phi in own) / len(own) for c, own in exemplars.items()}
    found = []
    for phi in features:
        distances = {c: float((phi / phi.norm() - mean / mean.norm()).norm()) for c, mean in means.items()}
        found.append(min(distances, key=distances.__getitem__))
    return found


def projected(g: Tensor, ref: Tensor) -> Tensor:
    """A-GEM, eq. 11: g − (gᵀ g_ref / g_refᵀ g_ref) g_ref where gᵀ g_ref < 0, else g; one number at a time."""
    dot, square = (math.fsum(a * b for a, b in zip(v.tolist(), ref.tolist(), strict=True)) for v in (g, ref))
    pairs = zip(g.tolist(), ref.tolist(), strict=True)
    return g if dot >= 0 else torch.tensor([a - dot / square * b for a, b in pairs], dtype=torch.float64)


# Memory -------------------------------------------------------------------------------------------------------------


def reservoir(draws: list[int], size: int) -> list[int]:
    """Vitter's algorithm R: numbers of the samples in the slots, draws[n] a number among 0..n."""
    slots: list[int] = []
    for n, slot in enumerate(draws):
        if n < size:
            slots.append(n)
        elif slot < size:
            slots[slot] = n
    return slots


def task_loss(model: nn.Module, x: Tensor, y: Tensor, visible: list[int]) -> Tensor:
    """−(1/N) Σ_n log p(y_n|x_n), p over the visible columns; differentiable."""
    each = [-log_probability(model, x_n, y_n, visible) for x_n, y_n in zip(x, y.tolist(), strict=True)]
    return torch.stack(each).mean()


def departure(model: nn.Module, x: Tensor, stored: Tensor) -> Tensor:
    """(1/N) Σ_n Σ_k (z_nk − z'_nk)²; differentiable."""
    total = torch.zeros((), dtype=torch.float64)
    for x_n, z_n in zip(x, stored, strict=True):
        for z, old in zip(model(x_n.unsqueeze(0))[0], z_n, strict=True):
            total = total + (z - old) ** 2 / len(x)
    return total


def gem(g: Tensor, G: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """argmin ½‖g̃ − g‖², G g̃ ≥ 0, and its multipliers v >= 0, by trying every set of constraints that may be tight;
    then g + Gᵀ(v + margin), or g itself if it violates nothing. g (P,), G (k, P)."""
    if bool((G @ g >= 0).all()):
        return g, torch.zeros(len(G), dtype=torch.float64)
    found: list[tuple[float, Tensor]] = []
    for num in range(1, len(G) + 1):
        for tight in map(list, itertools.combinations(range(len(G)), num)):
            v = torch.zeros(len(G), dtype=torch.float64)
            v[tight] = torch.linalg.solve(G[tight] @ G[tight].T, -G[tight] @ g)
            moved = g + G.T @ v
            if bool((v >= 0).all()) and bool((G @ moved >= -1e-9 * G.norm(dim=1) * g.norm()).all()):
                found.append((float((moved - g).norm()), v))
    v = min(found, key=lambda pair: pair[0])[1]
    return g + G.T @ (v + margin), v


def gem_bounded(g: Tensor, G: Tensor, margin: float, ridge: float) -> Tensor:
    """g + Gᵀv, v = argmin ½ vᵀ(GGᵀ + ridge I)v + gᵀGᵀv, v ≥ margin, by trying every set of v at the bound; or g itself
    if it violates nothing (the code of Lopez-Paz & Ranzato 2017)."""
    if bool((G @ g >= 0).all()):
        return g
    P, along = G @ G.T + ridge * torch.eye(len(G), dtype=G.dtype), G @ g
    for num in range(len(G) + 1):
        for free in map(list, itertools.combinations(range(len(G)), num)):
            v = torch.full((len(G),), margin, dtype=torch.float64)
            held = [i for i in range(len(G)) if i not in free]
            if free:
                v[free] = torch.linalg.solve(P[free][:, free], -along[free] - P[free][:, held] @ v[held])
            slope = P @ v + along
            if bool((v[free] >= margin).all()) and bool((slope[held] >= 0).all()):
                return g + G.T @ v
    raise AssertionError("no set of v satisfies the conditions of a minimum")


# Isolation --------------------------------------------------------------------------------------------------------


def compensated(e: Tensor, loss: Callable[[Tensor], Tensor], *, s: float, s_max: float) -> Tensor:
    """q' = s_max (cosh(s e) + 1) / (s (cosh(e) + 1)) · q, q = ∂ loss(σ(s e))/∂e by autograd (HAT, eq. 6)."""
    e = e.detach().double().requires_grad_()
    (q,) = torch.autograd.grad(loss(1 / (1 + torch.exp(-s * e))), e)
    factors = [s_max * (math.cosh(s * x) + 1) / (s * (math.cosh(x) + 1)) for x in e.tolist()]
    return torch.stack([factor * slope for factor, slope in zip(factors, q, strict=True)])


def attention_used(gates: list[list[float]], claimed: list[list[float]]) -> float:
    """Σ a (1 − a_earlier) / Σ (1 − a_earlier) over all units of all layers (HAT, eq. 5)."""
    used = total = 0.0
    for a, earlier in zip(gates, claimed, strict=True):
        for unit, before in zip(a, earlier, strict=True):
            used += unit * (1 - before)
            total += 1 - before
    return used / total


def unclaimed(shape: tuple[int, ...], out: list[float], before: list[float] | None) -> Tensor:
    """1 − min(a_out, a_in) of each weight (HAT, eq. 2); before: by unit of the layer before, whose pixels follow each
    other; None: the input, of which all is shared."""
    factors = torch.empty(shape, dtype=torch.float64)
    for i in range(shape[0]):
        for j in range(shape[1]):
            a_in = 1.0 if before is None else before[j * len(before) // shape[1]]
            factors[i, j] = 1 - min(out[i], a_in)
    return factors
