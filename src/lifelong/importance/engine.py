"""Sums over the samples of a batch of Σ_r w_r |∂(v_r · z)/∂θ|^power, and their mean over a data set."""

from collections.abc import Callable, Iterable
from typing import get_args

import torch
from torch import Tensor, nn

from lifelong.importance.closed import add_closed
from lifelong.importance.path import Path, as_model_input, choose_path, choose_slow_path
from lifelong.importance.per_sample import add_by_vmap, add_one_by_one
from lifelong.importance.sums import Params, all_or_nothing, in_chunks, over_batches, trainable, zero_sums
from lifelong.importance.tape import NoClosedForm
from lifelong.importance.traceless import leaving_no_trace

Batches = Iterable[tuple[Tensor, Tensor]]
Cotangents = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(z (B, K) detached, y (B,)) → (v (R, B, K), w (R, B) >= 0)."""

CHUNK_BYTES = {"cpu": 2**23, "cuda": 2**28}
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
        ValueError: no sample in `batches`, another `power` or `path`, or `path="closed"` for a model without one.
        torch.OutOfMemoryError: memory does not suffice for one sample.
    """
    taken = path
    with leaving_no_trace(model):
        sums = zero_sums(model)

        def work(x: Tensor, y: Tensor) -> None:
            nonlocal taken
            try:
                taken = _add(model, x, y, cotangents, sums, power, taken, chunk_bytes)
            except NoClosedForm:
                if path == "closed":
                    raise
                taken = _add(model, x, y, cotangents, sums, power, choose_slow_path(model, x), chunk_bytes)

        count = over_batches(batches, work, sums)
        return {name: (sums[name] / count).to(p.dtype) for name, p in trainable(model).items()}


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

    Sums are float32 at least. "auto" compares paths in every call: for one batch after the other choose once, with
    `choose_path`. Raises ValueError as `mean_power_gradient` does.
    """
    with leaving_no_trace(model):
        sums = zero_sums(model)

        def work(x: Tensor, y: Tensor) -> None:
            _add(model, x, y, cotangents, sums, power, path, chunk_bytes)

        in_chunks(len(x), len(x), all_or_nothing(x, y, work, sums, {}, fresh=True))
        return sums, len(x)


def _add(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    cotangents: Cotangents,
    sums: Params,
    power: int,
    path: Path,
    chunk_bytes: int | None,
) -> Path:
    """Add one batch to the sums; returns the path taken."""
    if power not in (1, 2):
        raise ValueError(f"power must be 1 or 2, got {power!r}")
    if path not in get_args(Path):
        raise ValueError(f"path must be one of {', '.join(get_args(Path))}, got {path!r}")
    if not sums:
        return path
    x = as_model_input(model, x)
    chunk_bytes = chunk_bytes or CHUNK_BYTES.get(x.device.type, 2**26)

    def weighted(z: Tensor) -> Tensor:
        """w |v·J|^p = |(w^(1/p) v)·J|^p, so w need not be known below."""
        v, w = cotangents(z, y)
        return (v * w.pow(1 / power).unsqueeze(-1)).to(z.dtype)

    taken = choose_path(model, x) if path == "auto" else path
    if taken == "closed":
        add_closed(model, x, weighted, sums, power, chunk_bytes)
        return taken
    with torch.no_grad():
        v = weighted(model(x))
    if taken == "func":
        add_by_vmap(model, x, v, sums, power, chunk_bytes)
    else:
        add_one_by_one(model, x, v, sums, power)
    return taken
