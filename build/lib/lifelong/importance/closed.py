"""The sums of one batch by closed forms, layer by layer.

For a linear layer with input a_n and gradient g_n at its output the gradient of one sample is the outer product
g_n ⊗ a_n, so the sum over samples of its power is one matrix product, (|G|^p)ᵀ |A|^p, and with R cotangents per sample
still one, as Σ_r moves to G. Other layers take the per-sample gradients of that one layer, in chunks.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lifelong.importance.layers import RULES, elements_per_sample
from lifelong.importance.sums import Params, added, in_chunks, magnitude, magnitude_
from lifelong.importance.tape import Pass, covered_layers, recording


def add_closed(
    model: nn.Module, x: Tensor, cotangents: Callable[[Tensor], Tensor], sums: Params, power: int, chunk_bytes: int
) -> None:
    """sums += Σ_n Σ_r |∂(v_rn · z_n)/∂θ|^power, x: (B, ...), v = cotangents(z): (R, B, K).

    Raises:
        NoClosedForm: the model is not covered; nothing has been added then.
    """
    with recording(covered_layers(model), len(x)) as passes:
        z = model(x)
    add_passes(z, passes, cotangents(z.detach()), sums, power, chunk_bytes)


def add_passes(z: Tensor, passes: list[Pass], v: Tensor, sums: Params, power: int, chunk_bytes: int) -> None:
    """The same after the forward pass; frees the graph of z. z: (B, K), v: (R, B, K)."""
    if not passes or not z.requires_grad:
        return
    outputs = [seen.output for seen in passes]
    squares: dict[Pass, Tensor] = {}
    for r, v_r in enumerate(v):
        gradients = torch.autograd.grad(z, outputs, v_r, retain_graph=r + 1 < len(v), allow_unused=True)
        for seen, g in zip(passes, gradients, strict=True):
            if g is None:
                continue
            if _is_outer_product(seen):
                squares[seen] = added(squares.get(seen), g.to(seen.a.dtype), power)
            else:
                _add_in_chunks(seen, g.to(seen.a.dtype), sums, power, chunk_bytes)
    for seen, square in squares.items():
        _add_outer_products(seen, square, sums, power)


def _is_outer_product(seen: Pass) -> bool:
    return isinstance(seen.layer.module, nn.Linear) and seen.a.dim() == 2


def _add_outer_products(seen: Pass, square: Tensor, sums: Params, power: int) -> None:
    """square: Σ_r |g_r|^power, (B, out)."""
    names = seen.layer.names
    if "weight" in names:
        sums[names["weight"]].addmm_(square.t(), magnitude(seen.a, power))
    if "bias" in names:
        sums[names["bias"]].add_(square.sum(0))


def _add_in_chunks(seen: Pass, g: Tensor, sums: Params, power: int, chunk_bytes: int) -> None:
    layer, a = seen.layer.module, seen.a
    rule = RULES[type(layer)]

    def work(chunk: slice) -> None:
        each = rule(layer, a[chunk], g[chunk])
        parts = {key: magnitude_(each[name], power).sum(0) for name, key in seen.layer.names.items()}
        for key, part in parts.items():
            sums[key].add_(part)

    in_chunks(len(a), chunk_bytes // (elements_per_sample(layer, a) * a.element_size()), work)
