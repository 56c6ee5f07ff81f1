"""Sums over the samples of a batch of Σ_r w_r |∂(v_r · z)/∂θ|^power, and their mean over a data set."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import get_args

from torch import Tensor, nn

from lifelong.importance.closed import add_uses
from lifelong.importance.path import Layout, Path, layout_of, recorded, slow_path, with_closed_form
from lifelong.importance.per_sample import add_by_vmap, add_one_by_one, outputs_alone
from lifelong.importance.sums import Params, all_or_nothing, in_chunks, over_batches, trainable, zero_sums
from lifelong.importance.traceless import as_model_input, leaving_no_trace

Batches = Iterable[tuple[Tensor, Tensor]]
Cotangents = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(z (B, K) detached, y (B,)) → (v (R, B, K), w (R, B) >= 0)."""

CHUNK_BYTES = {"cpu": 2**21, "cuda": 2**28}
"""Default bound on the memory of the per-sample gradients held at once: on a CPU what its cache takes is fastest."""


def mean_power_gradient(
    model: nn.Module,
    batches: Batches,
    cotangents: Cotangents,
    *,
    power: int,
    path: Path = "auto",
    chunk_bytes: int | None = None,
) -> Params:
    """Mean over all samples n of Σ_r w_nr |∂(v_nr · z_n)/∂θ|^power, power 1 or 2, keyed by trainable parameter.

    It does not depend on how the batches are cut, which they are when memory runs out, nor on how they are shared among
    ranks (see `over_batches`), and the model is left as it was (see `leaving_no_trace`).

    Raises:
        ValueError: no sample in `batches`, another `power` or `path`, or a model that does not return logits (B, K).
        torch.OutOfMemoryError: memory does not suffice for one sample.
    """
    with leaving_no_trace(model):
        adder = Adder(model, cotangents, power, path, chunk_bytes)
        count = over_batches(batches, adder.add, adder.sums)
        return {name: (adder.sums[name] / count).to(p.dtype) for name, p in trainable(model).items()}


def batch_power_sums(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    cotangents: Cotangents,
    *,
    power: int,
    path: Path = "auto",
    chunk_bytes: int | None = None,
) -> tuple[Params, int]:
    """Sum, not mean, over the samples of one batch of Σ_r w_nr |∂(v_nr · z_n)/∂θ|^power, and the number of samples.

    Sums are float32 at least. Raises ValueError as `mean_power_gradient` does.
    """
    with leaving_no_trace(model):
        adder = Adder(model, cotangents, power, path, chunk_bytes)
        in_chunks(len(x), len(x), all_or_nothing(x, y, adder.add, adder.sums, {}, fresh=True))
        return adder.sums, len(x)


@dataclass
class Adder:
    """Adds batches to `sums`; what it has seen of the model on the first of them is kept for the others."""

    model: nn.Module
    cotangents: Cotangents
    power: int
    path: Path
    chunk_bytes: int | None
    layout: Layout | None = None
    paths: dict[tuple[str, ...], Path] = field(default_factory=dict)
    """Slow ones, by the parameters that take them."""

    def __post_init__(self) -> None:
        if self.power not in (1, 2):
            raise ValueError(f"power must be 1 or 2, got {self.power!r}")
        if self.path not in get_args(Path):
            raise ValueError(f"path must be one of {', '.join(get_args(Path))}, got {self.path!r}")
        self.sums = zero_sums(self.model)

    def add(self, x: Tensor, y: Tensor) -> None:
        if not self.sums:
            return
        x = as_model_input(self.model, x)
        self.layout = self.layout or layout_of(self.model, x, self.path)
        chunk_bytes = self.chunk_bytes or CHUNK_BYTES.get(x.device.type, 2**26)
        if self.path in ("func", "loop") or self.layout.mixing:
            self._add_slowly(x, self.sums, None, y, chunk_bytes)
            return
        uses, z = recorded(self.model, x)
        if z.requires_grad:
            closed, rest = with_closed_form(self.model, z, uses, self.layout)
            v = self._weighted(z.detach(), y)
            if rest:
                self._add_slowly(x, {name: self.sums[name] for name in sorted(rest)}, v, y, chunk_bytes)
            add_uses(z, closed, v, self.sums, self.power, chunk_bytes)

    def _add_slowly(self, x: Tensor, sums: Params, v: Tensor | None, y: Tensor, chunk_bytes: int) -> None:
        """For the parameters in `sums`, every sample as if it were the only one; v is None if z is to be so too."""
        names = tuple(sums)
        if names not in self.paths:
            forced = self.path in ("func", "loop")
            self.paths[names] = self.path if forced else slow_path(self.model, x, names)
        path = self.paths[names]
        v = self._weighted(outputs_alone(self.model, x, path), y) if v is None else v
        if path == "func":
            add_by_vmap(self.model, x, v, sums, self.power, chunk_bytes)
        else:
            add_one_by_one(self.model, x, v, sums, self.power)

    def _weighted(self, z: Tensor, y: Tensor) -> Tensor:
        """w |v·J|^p = |(w^(1/p) v)·J|^p, so w need not be known below."""
        v, w = self.cotangents(z, y)
        return (v * w.pow(1 / self.power).unsqueeze(-1)).to(z.dtype)
