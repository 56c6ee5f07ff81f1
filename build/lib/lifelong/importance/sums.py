"""Running sums keyed by parameter name, and how they are filled within a bound on memory."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Params = dict[str, Tensor]


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def zero_sums(model: nn.Module) -> Params:
    """One zero per trainable parameter, in at least float32."""
    return {
        name: torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32), requires_grad=False)
        for name, p in trainable(model).items()
    }


def magnitude(t: Tensor, power: int) -> Tensor:
    """|t|^power for power 1 or 2."""
    return t.abs() if power == 1 else t * t


def magnitude_(t: Tensor, power: int) -> Tensor:
    """The same in place."""
    return t.abs_() if power == 1 else t.square_()


def added(total: Tensor | None, g: Tensor, power: int) -> Tensor:
    """total + |g|^power; total is used up."""
    new = magnitude(g, power)
    return new if total is None else total.add_(new)


def in_chunks(total: int, size: int, work: Callable[[slice], None]) -> None:
    """Call `work` on slices that cover range(total), halving them when memory runs out.

    `work` must change nothing before its last allocation. Raises torch.OutOfMemoryError if one sample is too much.
    """
    start, size = 0, max(1, min(size, total))
    while start < total:
        stop = min(start + size, total)
        try:
            work(slice(start, stop))
        except torch.OutOfMemoryError:
            if stop - start == 1:
                raise
            size = (stop - start) // 2
        else:
            start = stop
