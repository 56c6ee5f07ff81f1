"""Slow and obvious: float64, loops over single samples, autograd of the formula as written. Shares no code with src.

Shapes: N samples, K classes. `visible` is a list of columns. Results are dicts keyed by parameter name.
"""

import cmath
import copy
import itertools
import math
from collections.abc import Callable, Sequence

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


def fisher_of_predictions(model: nn.Module, x: Tensor, visible: list[int]) -> Params:
    """(1/N) Σ_n (∂ log p(ŷ_n|x_n)/∂θ)², ŷ_n the visible column of the largest logit."""
    twin = frozen_copy(model)
    predicted = [max(visible, key=twin(x_n.double().unsqueeze(0))[0].tolist().__getitem__) for x_n in x]
    return fisher_of_labels(model, x, torch.tensor(predicted), visible)


def fisher_of_weighted_labels(model: nn.Module, x: Tensor, y: Tensor, visible: list[int]) -> Params:
    """(1/N) Σ_n p(y_n|x_n) (∂ log p(y_n|x_n)/∂θ)² for given labels y (N,): of the exact Fisher's terms one a sample."""
    model, x = frozen_copy(model), x.double()
    total = zeros(model)
    for x_n, y_n in zip(x, y.tolist(), strict=True):
        log_p = log_probability(model, x_n, y_n, visible)
        for name, g in gradient(model, log_p).items():
            total[name] += log_p.exp().item() * g**2 / len(x)
    return total


def squared_batch_means(model: nn.Module, x: Tensor, y: Tensor, visible: list[int], batch_size: int) -> Params:
    """Σ_batches (B/N) (∂/∂θ (1/B) Σ_n log p(y_n|x_n))²: no Fisher information."""
    model = frozen_copy(model)
    total = zeros(model)
    for x_b, y_b in zip(x.double().split(batch_size), y.split(batch_size), strict=True):
        log_p = [log_probability(model, x_n, y_n, visible) for x_n, y_n in zip(x_b, y_b.tolist(), strict=True)]
        for name, g in gradient(model, torch.stack(log_p).mean()).items():
            total[name] += len(x_b) / len(x) * g**2
    return total


def fisher_of_reversed_logits(model: nn.Module, x: Tensor, y: Tensor, visible: list[int]) -> Params:
    """(1/N) Σ_n (∂ log(exp(−z_y)/Σ_c exp(−z_c))/∂θ)² for the labels y (N,)."""
    model, x = frozen_copy(model), x.double()
    total = zeros(model)
    for x_n, y_n in zip(x, y.tolist(), strict=True):
        z = model(x_n.unsqueeze(0))[0]
        log_p = -z[y_n] - torch.stack([torch.exp(-z[c]) for c in visible]).sum().log()
        for name, g in gradient(model, log_p).items():
            total[name] += g**2 / len(x)
    return total


def kronecker_factors(model: nn.Module, x: Tensor, layer: str, visible: list[int]) -> tuple[Tensor, Tensor]:
    """A (1/NT) Σ_n Σ_t a aᵀ and G (1/N) Σ_n Σ_y p(y|x_n) Σ_t g gᵀ of a linear layer or convolution, t its positions:
    a its input there with 1 behind it for a bias, g the gradient of log p(y|x_n) at its output."""
    model, x = frozen_copy(model), x.double()
    module, seen = model.get_submodule(layer), []
    module.register_forward_hook(lambda _, inputs, z: seen.append((inputs[0], z)))
    A, G = 0.0, 0.0
    for x_n in x:
        for y in visible:
            seen.clear()
            log_p = log_probability(model, x_n, y, visible)
            (inputs, outputs), *_ = seen
            (slope,) = torch.autograd.grad(log_p, outputs)
            rows = patches(module, inputs[0].detach()) if isinstance(module, nn.Conv2d) else [inputs[0].detach()]
            slopes = slope[0].flatten(1).T if isinstance(module, nn.Conv2d) else slope
            for a, g in zip(rows, slopes, strict=True):
                a = a if module.bias is None else torch.cat([a, torch.ones(1, dtype=a.dtype)])
                A = A + torch.outer(a, a) / (len(x) * len(rows) * len(visible))
                G = G + log_p.detach().exp() * torch.outer(g, g) / len(x)
    return A, G


def patches(conv: nn.Conv2d, image: Tensor) -> list[Tensor]:
    """What each pixel of the output sees of an image (C, H, W), row by row; square kernels, strides and paddings."""
    k, s, p = conv.kernel_size[0], conv.stride[0], conv.padding[0]
    padded = image.new_zeros(len(image), image.shape[1] + 2 * p, image.shape[2] + 2 * p)
    padded[:, p : p + image.shape[1], p : p + image.shape[2]] = image
    starts = itertools.product(*(range(0, size - k + 1, s) for size in padded.shape[1:]))
    return [padded[:, i : i + k, j : j + k].flatten() for i, j in starts]


def fisher_block(model: nn.Module, x_n: Tensor, names: list[str], visible: list[int]) -> Tensor:
    """Σ_y p(y|x_n) ∇ ∇ᵀ of the named parameters of a layer, ∇ = ∂ log p/∂(weight and bias), one row an output."""
    model, total = frozen_copy(model), 0.0
    for y in visible:
        log_p = log_probability(model, x_n.double(), y, visible)
        found = gradient(model, log_p)
        flat = torch.cat([found[n].reshape(len(found[n]), -1) for n in names], 1).flatten()
        total = total + log_p.detach().exp() * torch.outer(flat, flat)
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


def mas_of_batch_means(model: nn.Module, x: Tensor, visible: list[int], batch_size: int) -> Params:
    """Σ_batches (B/N) |∂/∂θ (1/B) Σ_n ‖z_n‖²|, the norm over the visible columns."""
    model = frozen_copy(model)
    total = zeros(model)
    for x_b in x.double().split(batch_size):
        norms = [(model(x_n.unsqueeze(0))[0, visible] ** 2).sum() for x_n in x_b]
        for name, g in gradient(model, torch.stack(norms).mean()).items():
            total[name] += len(x_b) / len(x) * g.abs()
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


# Penalties --------------------------------------------------------------------------------------------------------
# θ, anchors and importances as lists of tensors in one order, or flat (P,); S steps, T tasks.

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


# Evaluation within tasks -------------------------------------------------------------------------------------------


def continual_evaluation(rows: list[list[float]], tasks: list[int]) -> dict[str, float | list[float]]:
    """min-ACC and WC-ACC (De Lange et al. 2023), AAA (Caccia et al. 2022), and our number for the stability gap.

    rows: of each evaluation in order of time, the accuracy on every task; tasks: the one being learned at it.
    """
    k = tasks[-1] + 1
    lowest = [min(row[j] for row, task in zip(rows, tasks, strict=True) if task > j) for j in range(k - 1)]
    anytime = [sum(row[: task + 1]) / (task + 1) for row, task in zip(rows, tasks, strict=True)]
    gaps = []
    for switch in range(1, k):
        drops = []
        for j in range(switch):
            before = [row[j] for row, task in zip(rows, tasks, strict=True) if task == switch - 1][-1]
            during = [row[j] for row, task in zip(rows, tasks, strict=True) if task == switch]
            drops.append(min(before, during[-1]) - min(before, *during))
        gaps.append(sum(drops) / switch)
    min_acc = sum(lowest) / (k - 1)
    return {
        "within_min_accuracy": min_acc,
        "within_worst_case_accuracy": rows[-1][k - 1] / k + (1 - 1 / k) * min_acc,
        "within_average_anytime_accuracy": sum(anytime) / len(anytime),
        "within_stability_gap": sum(gaps) / len(gaps),
        "within_stability_gap_per_switch": gaps,
    }


# Streams ----------------------------------------------------------------------------------------------------------


def rotated_nearest(image: Tensor, angle: float) -> Tensor:
    """The image (H, W) turned counter-clockwise by `angle` degrees about its centre: each pixel is the one nearest to
    where it comes from, the right or lower of two as near; 0 from outside."""
    height, width = image.shape
    turn = cmath.rect(1, math.radians(angle))
    result = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            here = complex(column - (width - 1) / 2, (height - 1) / 2 - row)  # y upwards
            there = here / turn
            x, y = there.real + (width - 1) / 2, (height - 1) / 2 - there.imag
            nearest_x, nearest_y = (math.floor(round(v + 0.5, 9)) for v in (x, y))
            if 0 <= nearest_x < width and 0 <= nearest_y < height:
                result[row, column] = image[nearest_y, nearest_x]
    return result


# Analysis ---------------------------------------------------------------------------------------------------------


def cosine(a: list[float], b: list[float]) -> float:
    """Σ a_i b_i / (√Σ a_i² √Σ b_i²)."""
    dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b))


def top_weights(omega: list[float], share: float) -> set[int]:
    """Positions of the largest ceil(share · P) values, without those that are zero."""
    order = sorted(range(len(omega)), key=lambda i: -omega[i])
    return {i for i in order[: math.ceil(share * len(omega))] if omega[i] > 0}


def claimed_weights(omega: list[float], mass: float) -> set[int]:
    """Largest first, until they hold the share `mass` of the total."""
    chosen: set[int] = set()
    for i in sorted(range(len(omega)), key=lambda i: -omega[i]):
        if math.fsum(omega[j] for j in chosen) >= mass * math.fsum(omega):
            break
        chosen.add(i)
    return chosen


def hsic_cka(x: Tensor, y: Tensor) -> float:
    """HSIC(K, L)/√(HSIC(K, K) HSIC(L, L)), K = XXᵀ, L = YYᵀ, HSIC = tr(K H L H) (Kornblith et al. 2019, eq. 3)."""
    num = len(x)
    H = torch.eye(num, dtype=torch.float64) - 1 / num
    K, L = (torch.tensor([[float(a.double() @ b.double()) for b in f] for a in f], dtype=torch.float64) for f in (x, y))

    def hsic(A: Tensor, B: Tensor) -> float:
        return float((A @ H @ B @ H).trace())

    return hsic(K, L) / math.sqrt(hsic(K, K) * hsic(L, L))


def entropy_rank(phi: Tensor) -> float:
    """exp(−Σ p log p), p the square roots of the eigenvalues of ΦᵀΦ over their sum."""
    sigma = [math.sqrt(max(v, 0.0)) for v in torch.linalg.eigvalsh(phi.double().T @ phi.double()).tolist()]
    return math.exp(-sum(s / sum(sigma) * math.log(s / sum(sigma)) for s in sigma if s > 1e-12))


# Reports ----------------------------------------------------------------------------------------------------------


def sign_flip_p(differences: list[float]) -> float:
    """Share of all 2ⁿ choices of signs whose sum is as far from 0 as that of the differences."""
    own = abs(sum(differences))
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
            for signs in itertools.product((1, -1), repeat=len(differences))]  # fmt: skip
    return sum(found >= own - 1e-12 for found in sums) / len(sums)


def interquartile_mean(values: list[float]) -> float:
    """Mean of the sorted values without the ⌊n/4⌋ at either end."""
    cut = len(values) // 4
    kept = sorted(values)[cut : len(values) - cut]
    return sum(kept) / len(kept)
