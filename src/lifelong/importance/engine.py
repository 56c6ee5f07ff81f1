"""Means over a data set of Σ_r w_r |∂(v_r · z)/∂θ|^power, summed over the samples of one batch after the other."""

from collections.abc import Callable

from torch import Tensor, nn

from lifelong.importance.closed import add_uses
from lifelong.importance.path import Layout, recorded, slow_path, survey, with_closed_form
from lifelong.importance.per_sample import add_by_vmap, add_one_by_one, outputs_alone
from lifelong.importance.sums import Batches, Params, over_batches, samples_held, trainable, zero_sums
from lifelong.importance.tape import Use
from lifelong.importance.traceless import as_model_input, leaving_no_trace

Cotangents = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(z (B, K) detached, y (B,)) → (v (R, B, K), w (R, B) >= 0)."""


def mean_power_gradient(model: nn.Module, batches: Batches, cotangents: Cotangents, *, power: int) -> Params:
    """Mean over all samples n of Σ_r w_nr |∂(v_nr · z_n)/∂θ|^power, power 1 or 2, keyed by trainable parameter.

    It does not depend on how the batches are cut, which they are when memory runs out, nor on how they are shared among
    ranks (see `over_batches`), and the model is left as it was (see `leaving_no_trace`).

    Raises:
        ValueError: no sample in `batches`, another `power`, or a model that does not return logits (B, K).
        torch.OutOfMemoryError: memory does not suffice for one sample.
    """
    if power not in (1, 2):
        raise ValueError(f"power must be 1 or 2, got {power!r}")
    with leaving_no_trace(model):
        adder = _Adder(model, cotangents, power)
        count = over_batches(batches, adder.add, adder.sums)
        return {name: (adder.sums[name] / count).to(p.dtype) for name, p in trainable(model).items()}


class _Adder:
    """Adds batches to `sums`; what it has seen of the model on the first of them is kept for the others."""

    def __init__(self, model: nn.Module, cotangents: Cotangents, power: int) -> None:
        self.model, self.cotangents, self.power = model, cotangents, power
        self.sums = zero_sums(model)
        self.layout: Layout | None = None
        self.paths: dict[tuple[str, ...], str] = {}  # slow ones, by the parameters that take them

    def add(self, x: Tensor, y: Tensor) -> None:
        if not self.sums:
            return
        x = as_model_input(self.model, x)
        self.layout = self.layout or survey(self.model, x)
        if self.layout.mixing:
            self._add_slowly(x, self.sums, None, y)
            return
        uses, z = recorded(self.model, x)
        if not z.requires_grad:
            return
        v = self._weighted(z.detach(), y)
        size = samples_held(z, len(v) * sum(use.shape.numel() for use in uses) // len(x)) if len(v) > 1 else len(x)
        if size >= len(x):
            self._add_recorded(x, y, v, uses, z, self.layout)
            return
        del uses, z
        for part in map(slice, range(0, len(x), size), range(size, len(x) + size, size)):
            self._add_recorded(x[part], y[part], v[:, part], *recorded(self.model, x[part]), self.layout)

    def _add_recorded(self, x: Tensor, y: Tensor, v: Tensor, uses: list[Use], z: Tensor, layout: Layout) -> None:
        closed, rest = with_closed_form(self.model, z, uses, layout)
        if rest:
            self._add_slowly(x, {name: self.sums[name] for name in sorted(rest)}, v, y)
        add_uses(z, closed, v, self.sums, self.power)

    def _add_slowly(self, x: Tensor, sums: Params, v: Tensor | None, y: Tensor) -> None:
        """For the parameters in `sums`, every sample as if it were the only one; v is None if z is to be so too."""
        names = tuple(sums)
        path = self.paths[names] = self.paths.get(names) or slow_path(self.model, x, names)
        v = self._weighted(outputs_alone(self.model, x, path), y) if v is None else v
        add = add_by_vmap if path == "func" else add_one_by_one
        add(self.model, x, v, sums, self.power)

    def _weighted(self, z: Tensor, y: Tensor) -> Tensor:
        """w |v·J|^p = |(w^(1/p) v)·J|^p, so w need not be known below."""
        v, w = self.cotangents(z, y)
        return (v * w.pow(1 / self.power).unsqueeze(-1)).to(z.dtype)
