"""Importance: Fisher information, Kronecker factors, MAS and SCP of samples, one after the other.

Shapes: N samples, K classes. `visible` is a list of columns. Results are dicts keyed by parameter name.
"""

import copy
import itertools

import torch
from torch import Tensor, nn

Params = dict[str, Tensor]


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
