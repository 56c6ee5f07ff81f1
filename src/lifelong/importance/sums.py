"""Running sums keyed by parameter name, and how they are filled within a bound on memory."""

import sys
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn

from lifelong.distributed.ranks import sum_over_ranks_, total_over_ranks

Params = dict[str, Tensor]
Batches = Iterable[tuple[Tensor, Tensor]]
Work = Callable[[Tensor, Tensor], None]

CHUNK_BYTES = {"cpu": 2**21, "cuda": 2**28}
"""Bound on the memory of the per-sample gradients held at once: on a CPU what its cache takes is fastest."""


HELD_BYTES = {"cpu": 2**28, "cuda": 2**31}
"""Bound on the memory of all gradients at outputs of a batch. More samples come in parts, with a forward pass each."""


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def zero_sums(model: nn.Module, *leading: int) -> Params:
    """Zeros for every trainable parameter, (*leading, *parameter.shape), in at least float32."""
    return {
        name: torch.zeros((*leading, *p.shape), dtype=torch.promote_types(p.dtype, torch.float32), device=p.device)
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


def over_batches(batches: Batches, work: Work, sums: Params) -> int:
    """Call work(x, y), which adds to `sums`, on every batch, or on parts of it when memory runs out; number of samples.

    Each rank hands in its own batches, which may be none, and zeros for sums. Sums and number are those of all ranks.

    What was added in vain is taken back, and from then on no part is larger than what fitted. The sums differ from
    those of whole batches by rounding alone, if what `work` adds of a sample does not depend on the others.

    Raises:
        ValueError: no sample in `batches`, on any rank.
        torch.OutOfMemoryError: memory does not suffice for one sample.
    """
    count, size = 0, sys.maxsize
    kept: Params = {}  # the same for all batches, as new memory costs more than the copy
    for x, y in batches:
        size = in_chunks(len(x), size, partial(_all_or_nothing, x, y, work, sums, kept, count == 0))
        count += len(x)
    total = total_over_ranks(count)
    if total == 0:
        raise ValueError("batches must hold at least one sample, got none")
    sum_over_ranks_(sums.values())
    return total


def recut(batches: Batches, size: int) -> Batches:
    """The same samples in the same order, in batches of `size`, but for the last one."""
    held: list[tuple[Tensor, Tensor]] = []
    for batch in batches:
        x, y = (torch.cat(parts) for parts in zip(*held, batch, strict=True))
        whole = len(x) - len(x) % size
        yield from zip(x[:whole].split(size), y[:whole].split(size), strict=True) if whole else ()
        held = [(x[whole:], y[whole:])]
    yield from ((x, y) for x, y in held if len(x))


def _all_or_nothing(x: Tensor, y: Tensor, work: Work, sums: Params, kept: Params, fresh: bool, chunk: slice) -> None:
    """`work` on a slice of the batch, which leaves `sums` as they were when memory runs out.

    They are copied to `kept`, but for those of a `fresh` batch's first slice, which are zero.
    """
    if chunk.start > 0 or not fresh:
        for name, s in sums.items():
            kept[name] = kept[name].copy_(s) if name in kept else s.clone()
    try:
        work(x[chunk], y[chunk])
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        for name, s in sums.items():
            s.copy_(kept[name]) if name in kept else s.zero_()
        if chunk.stop - chunk.start > 1:
            raise
        short = f"importance does not fit into memory, even one sample at a time: {error}"
        raise torch.OutOfMemoryError(short) from error


def in_chunks(total: int, size: int, work: Callable[[slice], None]) -> int:
    """Call `work` on slices that cover range(total), halving them when memory runs out; returns the size that fitted.

    `work` must change nothing before its last allocation. Raises torch.OutOfMemoryError if one sample is too much.
    """
    start, size = 0, max(1, size)
    while start < total:
        stop = min(start + size, total)
        try:
            work(slice(start, stop))
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error) or stop - start == 1:
                raise
            size = (stop - start) // 2
        else:
            start = stop
    return size


def samples_held(like: Tensor, num_values: int) -> int:
    """How many samples HELD_BYTES takes, at least one, with so many values as `like` holds for each."""
    return max(1, HELD_BYTES.get(like.device.type, 2**28) // max(1, num_values * like.element_size()))


def samples_at_once(like: Tensor, num_values: int) -> int:
    """How many samples CHUNK_BYTES takes, with so many values as `like` holds for each."""
    return CHUNK_BYTES.get(like.device.type, 2**26) // (num_values * like.element_size())


def ran_out(error: Exception) -> bool:
    """Whether memory did: a GPU's, or what torch or Python ask the system for."""
    ours = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return ours or any(name in str(error) for name in ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED"))
