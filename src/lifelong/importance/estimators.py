"""The importances that methods use: Fisher information (EWC), output sensitivity (MAS), mean output (SCP).

All are means over the samples of `batches`; see `mean_power_gradient` for what they have in common. `visible` (K,) bool
names the columns of z that count, None all: the others are as if the model had no such output.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong.distributed.ranks import own_generator
from lifelong.importance.engine import Batches, Cotangents, mean_power_gradient
from lifelong.importance.path import Layout, Path, survey
from lifelong.importance.per_sample import gradients
from lifelong.importance.sums import Params, over_batches, trainable, zero_sums
from lifelong.importance.traceless import as_model_input, leaving_no_trace, logits

LABELS = ("exact", "sampled", "empirical")


def fisher(
    model: nn.Module,
    batches: Batches,
    *,
    labels: str = "exact",
    visible: Tensor | None = None,
    generator: torch.Generator | None = None,
    path: Path = "auto",
) -> Params:
    """Diagonal of the Fisher information: mean over samples of E_y[(∂ log p(y|x)/∂θ)²].

    Args:
        labels: "exact" every visible y, weighted by p(y|x); "sampled" one y ~ p(y|x) per sample; "empirical" the label
            that comes with x (van de Ven 2025).
        generator: needed by "sampled"; the others draw nothing. A batch halved for want of memory is drawn anew. Rank 0
            draws from it, other ranks from one that is a function of its seed and their rank: labels follow the same
            law on any number of ranks, but are not equal.

    Raises:
        ValueError: another value of `labels`, no generator where one is needed, a label whose column is not visible.
    """
    if labels not in LABELS:
        raise ValueError(f"labels must be one of {', '.join(LABELS)}, got {labels!r}")
    draws = None if generator is None else own_generator(generator)

    def exact(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return score_covariance(*_probabilities(z, visible))

    def sampled(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if draws is None:
            raise ValueError("generator must be a torch.Generator for labels='sampled', got None")
        p, _ = _probabilities(z, visible)
        drawn = torch.multinomial(p.to(draws.device), 1, generator=draws).squeeze(1)
        return score(p, drawn.to(p.device)).unsqueeze(0), p.new_ones(1, len(p))

    def empirical(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        p, columns = _probabilities(z, visible)
        if not torch.isin(y, columns).all():
            raise ValueError(f"labels must be visible columns, {columns.tolist()}, got {y.unique().tolist()}")
        return score(p, y).unsqueeze(0), p.new_ones(1, len(p))

    by_labels: dict[str, Cotangents] = {"exact": exact, "sampled": sampled, "empirical": empirical}
    return mean_power_gradient(model, batches, by_labels[labels], power=2, path=path)


def mas(model: nn.Module, batches: Batches, *, visible: Tensor | None = None, path: Path = "auto") -> Params:
    """Mean over samples of |∂‖z‖²/∂θ|, the absolute value per sample (Aljundi et al. 2018). Labels are not used."""

    def squared_norm(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        shown = torch.zeros(z.shape[1], dtype=torch.bool, device=z.device)
        shown[_columns(z, visible)] = True
        return torch.where(shown, 2 * z, 0.0).unsqueeze(0), z.new_ones(1, len(z))

    return mean_power_gradient(model, batches, squared_norm, power=1, path=path)


def sliced_cramer(
    model: nn.Module,
    batches: Batches,
    *,
    visible: Tensor | None = None,
    num_slices: int | None = None,
    generator: torch.Generator | None = None,
) -> Params:
    """Mean over slices ξ of (∂(ξ · φ̄)/∂θ)², φ̄ the mean of z over all samples (SCP, Kolouri et al. 2020).

    The square comes after the mean over the whole data set, all ranks' samples included. Holds min(K, num_slices)
    gradients at once.

    Args:
        num_slices: L directions drawn from `generator`, uniform on the sphere of the visible columns; None: their
            expectation, (1/K) Σ_k (∂φ̄_k/∂θ)².

    Raises:
        ValueError: no sample in `batches`, `num_slices` < 1, or slices without a generator.
    """
    if num_slices is not None and num_slices < 1:
        raise ValueError(f"num_slices must be an integer >= 1 or None, got {num_slices!r}")
    if num_slices is not None and generator is None:
        raise ValueError(f"generator must be a torch.Generator for num_slices={num_slices}, got None")
    sums: Params = {}
    directions: Tensor | None = None
    layout: Layout | None = None
    with leaving_no_trace(model):

        def begin(z: Tensor) -> Tensor:
            nonlocal directions
            if directions is None:
                directions = _directions(z, visible, num_slices, generator)
            if not sums:
                sums.update({name: s.new_zeros(len(directions), *s.shape) for name, s in zero_sums(model).items()})
            return directions

        def begin_without_samples() -> None:
            if visible is not None:
                begin(visible.new_zeros(1, len(visible), dtype=torch.float32))

        def work(x: Tensor, y: Tensor) -> None:
            x = as_model_input(model, x)
            nonlocal layout
            layout = layout or survey(model, x)
            for part in x.split(1 if layout.mixing else len(x)):
                add(part)

        def add(x: Tensor) -> None:
            z = logits(model, x)
            for d, direction in enumerate(begin(z)):
                for name, g in gradients(model, z, direction.expand_as(z)).items():
                    sums[name][d] += g

        count = over_batches(batches, work, sums, begin_without_samples)
        return {name: (sums[name] / count).square().sum(0).to(p.dtype) for name, p in trainable(model).items()}


def score(p: Tensor, y: Tensor) -> Tensor:
    """∂ log p_y/∂z = onehot(y) − p, (B, K). 1 − p_y is summed from the other columns, to keep digits as p_y → 1."""
    others = p.scatter(1, y.unsqueeze(1), 0.0)
    return (-others).scatter(1, y.unsqueeze(1), others.sum(1, keepdim=True))


def score_covariance(p: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """v (C − 1, B, K) and w (C − 1, B) with Σ_r w_r v_r v_rᵀ = Σ_y p_y s_y s_yᵀ, s_y the score of y, C columns.

    The C scores are linearly dependent, Σ_y p_y s_y = 0, so one backward pass less gives the same sum. Take the columns
    in turn: v_r = onehot(r) − E[onehot(y) | y > r], w_r = p_r P(y > r)/P(y >= r). Only positive numbers are added.
    """
    tails = p[:, columns].flip(1).cumsum(1).flip(1)
    w = p[:, columns[:-1]] * tails[:, 1:] / tails[:, :-1].clamp_min(torch.finfo(p.dtype).tiny)
    v = p.new_zeros(len(columns) - 1, *p.shape)
    for r, column in enumerate(columns[:-1].tolist()):
        later = columns[r + 1 :]
        v[r][:, later] = -p[:, later] / tails[:, r + 1 : r + 2].clamp_min(torch.finfo(p.dtype).tiny)
        v[r, :, column] = 1.0
    return v, w.t()


def unit_slices(num_slices: int, num_columns: int, generator: torch.Generator) -> Tensor:
    """Directions uniform on the unit sphere, (num_slices, num_columns) float32, drawn where the generator lives."""
    gaussian = torch.randn(num_slices, num_columns, generator=generator, device=generator.device)
    return F.normalize(gaussian, dim=1)


def _directions(z: Tensor, visible: Tensor | None, num_slices: int | None, generator: torch.Generator | None) -> Tensor:
    """D (m, K) with DᵀD = mean_l ξ_l ξ_lᵀ, so Σ_d (D_d · J)² = mean_l (ξ_l · J)² with m <= the number of columns."""
    columns = _columns(z, visible)
    if num_slices is None or generator is None:
        rows = torch.eye(len(columns), dtype=torch.float64) / len(columns) ** 0.5
    else:
        slices = unit_slices(num_slices, len(columns), generator).to("cpu", torch.float64)
        rows = torch.linalg.qr(slices / num_slices**0.5, mode="r").R
    directions = z.new_zeros(len(rows), z.shape[1])
    directions[:, columns] = rows.to(z)
    return directions


def _probabilities(z: Tensor, visible: Tensor | None) -> tuple[Tensor, Tensor]:
    """softmax over the visible columns, each sample by itself, (B, K) with 0 elsewhere; and the visible columns."""
    columns = _columns(z, visible)
    p = torch.zeros_like(z, dtype=torch.promote_types(z.dtype, torch.float32))
    p[:, columns] = z[:, columns].to(p.dtype).softmax(1)
    return p, columns


def _columns(z: Tensor, visible: Tensor | None) -> Tensor:
    if visible is None:
        return torch.arange(z.shape[1], device=z.device)
    if visible.dtype != torch.bool or visible.shape != z.shape[1:] or not visible.any():
        raise ValueError(
            f"visible must be a bool tensor ({z.shape[1]},) with at least one True, got {visible.dtype} "
            f"{tuple(visible.shape)}, {int(visible.sum())} of them true"
        )
    return visible.to(z.device).nonzero().squeeze(1)
