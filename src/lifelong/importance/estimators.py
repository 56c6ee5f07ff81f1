"""The importances that methods use: Fisher information (EWC), output sensitivity (MAS), mean output (SCP).

All are means over the samples of `batches`; see `mean_power_gradient` for what they have in common. `visible` (K,) bool
names the columns of z that count, None all: the others are as if the model had no such output.
"""

import sys
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong.distributed.ranks import own_generator
from lifelong.importance.engine import mean_power_gradient
from lifelong.importance.path import Layout, survey
from lifelong.importance.per_sample import gradients
from lifelong.importance.sums import Batches, Params, in_chunks, over_batches, recut, trainable, zero_sums
from lifelong.importance.traceless import as_model_input, leaving_no_trace, logits

LABELS = ("exact", "sampled", "empirical", "weighted", "pred", "batched")
Directions = Callable[[Tensor, Tensor], Iterable[Tensor]]
"""z (B, K) with its graph, y (B,) → v (B, K), one or more."""


def fisher(
    model: nn.Module,
    batches: Batches,
    *,
    labels: str = "exact",
    visible: Tensor | None = None,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> Params:
    """Diagonal of the Fisher information: mean over samples of E_y[(∂ log p(y|x)/∂θ)²].

    Args:
        labels: "exact" every visible y, weighted by p(y|x); "sampled" one y ~ p(y|x) per sample; "empirical" the label
            that comes with x (van de Ven 2025); "pred" the visible y of the largest logit (Hsu et al. 2018, van de Ven
            and Tolias 2019). Two are no Fisher information, but what published code computes: "weighted" the term of
            "exact" that belongs to the label that comes with x (Buzzega et al. 2020); "batched" the square of the
            gradient of a batch's mean log p of the labels that come with x, averaged with the batches' sizes.
        batch_size: samples of a batch of "batched"; None: the batches as they are. A rank's batches are its own.
        generator: for "sampled". A batch halved for want of memory is drawn anew. Other ranks than 0 draw from one that
            is a function of its seed and their rank: on any number of ranks labels follow one law, but are not equal.

    Raises:
        ValueError: another value of `labels`, no generator where one is needed, a label whose column is not visible.
    """
    if labels not in LABELS:
        raise ValueError(f"labels must be one of {', '.join(LABELS)}, got {labels!r}")
    if labels == "batched":

        def batch_scores(z: Tensor, y: Tensor) -> Iterable[Tensor]:
            p, columns = _probabilities(z.detach(), visible)
            _check_visible(y, columns)
            return (score(p, y).to(z.dtype),)

        return _powers_of_batch_means(model, batches, batch_scores, batch_size, power=2)
    draws = None if generator is None else own_generator(generator)

    def scores(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        p, columns = _probabilities(z, visible)
        if labels == "exact":
            return score_covariance(p, columns)
        if labels == "sampled":
            if draws is None:
                raise ValueError("generator must be a torch.Generator for labels='sampled', got None")
            y = torch.multinomial(p.to(draws.device), 1, generator=draws).squeeze(1).to(p.device)
        elif labels == "pred":
            y = columns[z[:, columns].argmax(1)]
        else:
            _check_visible(y, columns)
        weights = p.gather(1, y.unsqueeze(1)).t() if labels == "weighted" else p.new_ones(1, len(p))
        return score(p, y).unsqueeze(0), weights

    return mean_power_gradient(model, batches, scores, power=2)


def mas(model: nn.Module, batches: Batches, *, visible: Tensor | None = None, batch_size: int | None = None) -> Params:
    """Mean over samples of |∂‖z‖²/∂θ|, the absolute value per sample (Aljundi et al. 2018). Labels are not used.

    batch_size: of batches of so many samples the absolute value of the mean gradient, averaged with their sizes:
    published code computes it. A rank's batches are its own. None: per sample.
    """

    def slope(z: Tensor) -> Tensor:
        shown = torch.zeros_like(z, dtype=torch.bool).index_fill_(1, _columns(z, visible), True)
        return torch.where(shown, 2 * z, 0.0)

    if batch_size is not None:
        return _powers_of_batch_means(model, batches, lambda z, y: (slope(z.detach()),), batch_size, power=1)
    return mean_power_gradient(model, batches, lambda z, y: (slope(z).unsqueeze(0), z.new_ones(1, len(z))), power=1)


def sliced_cramer(
    model: nn.Module,
    batches: Batches,
    visible: Tensor,
    *,
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
    slices = _directions(visible, num_slices, generator)

    def directions(z: Tensor, y: Tensor) -> Iterable[Tensor]:
        _columns(z, visible)
        return (direction.expand_as(z) for direction in slices.to(z))

    with leaving_no_trace(model):
        sums = zero_sums(model, len(slices))
        count = over_batches(batches, _GradientSum(model, directions, sums).add, sums)
        return {name: (sums[name] / count).square().sum(0).to(p.dtype) for name, p in trainable(model).items()}


def _powers_of_batch_means(
    model: nn.Module, batches: Batches, directions: Directions, batch_size: int | None, *, power: int
) -> Params:
    """Σ_batches (B/N) |mean_n ∂(v_n · z_n)/∂θ|^power, v the one direction of each sample."""
    size = sys.maxsize

    def work(x: Tensor, y: Tensor) -> None:
        """Where memory does not take a batch its gradient is summed in parts, as a part has another mean."""
        nonlocal size
        for s in of_batch.values():
            s.zero_()
        size = in_chunks(len(x), size, lambda chunk: of_one.add(x[chunk], y[chunk]))
        for name, s in sums.items():
            total = of_batch[name][0]
            s.addcmul_(total, total, value=1 / len(x)) if power == 2 else s.add_(total.abs_())

    with leaving_no_trace(model):
        sums, of_batch = zero_sums(model), zero_sums(model, 1)
        of_one = _GradientSum(model, directions, of_batch)
        count = over_batches(batches if batch_size is None else recut(batches, batch_size), work, sums)
        return {name: (sums[name] / count).to(p.dtype) for name, p in trainable(model).items()}


class _GradientSum:
    """Adds Σ_n ∂(v_n · z_n)/∂θ over the samples of a batch to `sums`, (number of directions, *θ.shape)."""

    def __init__(self, model: nn.Module, directions: Directions, sums: Params) -> None:
        self.model, self.directions, self.sums = model, directions, sums
        self.layout: Layout | None = None

    def add(self, x: Tensor, y: Tensor) -> None:
        x = as_model_input(self.model, x)
        self.layout = self.layout or survey(self.model, x)
        size = 1 if self.layout.mixing else len(x)
        for x_n, y_n in zip(x.split(size), y.split(size), strict=True):
            z = logits(self.model, x_n)
            for d, v in enumerate(self.directions(z, y_n)):
                for name, g in gradients(self.model, z, v).items():
                    self.sums[name][d] += g


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


def _directions(visible: Tensor, num_slices: int | None, generator: torch.Generator | None) -> Tensor:
    """D (m, K) float64 with DᵀD = mean_l ξ_l ξ_lᵀ: Σ_d (D_d · J)² = mean_l (ξ_l · J)², m <= the number of columns."""
    columns = _columns(visible.unsqueeze(0), visible)
    if num_slices is None:
        rows = torch.eye(len(columns), dtype=torch.float64) / len(columns) ** 0.5
    elif num_slices < 1 or generator is None:
        raise ValueError(f"num_slices must be None, or >= 1 with a generator, got {num_slices!r} and {generator!r}")
    else:
        slices = unit_slices(num_slices, len(columns), generator).to("cpu", torch.float64)
        rows = torch.linalg.qr(slices / num_slices**0.5, mode="r").R
    return torch.zeros(len(rows), len(visible), dtype=torch.float64).index_copy_(1, columns.cpu(), rows)


def _probabilities(z: Tensor, visible: Tensor | None) -> tuple[Tensor, Tensor]:
    """softmax over the visible columns, each sample by itself, (B, K) with 0 elsewhere; and the visible columns."""
    columns = _columns(z, visible)
    p = torch.zeros_like(z, dtype=torch.promote_types(z.dtype, torch.float32))
    p[:, columns] = z[:, columns].to(p.dtype).softmax(1)
    return p, columns


def _check_visible(y: Tensor, columns: Tensor) -> None:
    if not torch.isin(y, columns).all():
        raise ValueError(f"labels must be visible columns, {columns.tolist()}, got {y.unique().tolist()}")


def _columns(z: Tensor, visible: Tensor | None) -> Tensor:
    if visible is None:
        return torch.arange(z.shape[1], device=z.device)
    if visible.dtype != torch.bool or visible.shape != z.shape[1:] or not visible.any():
        raise ValueError(
            f"visible must be a bool tensor ({z.shape[1]},) with at least one True, got {visible.dtype} "
            f"{tuple(visible.shape)}, {int(visible.sum())} of them true"
        )
    return visible.to(z.device).nonzero().squeeze(1)
