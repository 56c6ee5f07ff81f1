"""The ranks of a run: processes that learn it together. With one process all functions here do nothing.

Every rank computes the same; only the samples of a batch are divided among them. What is all-reduced has sum, total or
largest in its name. Tensors on the CPU go over a gloo group, so that they do not wait for a GPU.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

LOST = ("gloo", "NCCL", "Connection closed", "Connection reset", "Broken pipe", "Timed out", "timed out", "store")
"""Words in the messages of a failed collective: torch raises plain RuntimeErrors for most."""
SMALL = 2**18
"""Elements of a tensor up to which copying it into a shared buffer is cheaper than an all-reduce of its own."""


class RankError(RuntimeError):
    """A rank failed, was killed, or can no longer be reached."""


@dataclass(frozen=True)
class Shard:
    """The shard of rank `rank` of `of`: every `of`-th sample, beginning with number `rank`.

    It is not contiguous: the second half of a balanced batch is replayed, and so is then half of every shard.
    """

    rank: int = 0
    of: int = 1

    def rows(self, start: int, stop: int) -> slice:
        """Which of the rows start..stop − 1 belong to the shard."""
        return slice(start + self.rank, stop, self.of)

    def count(self, num: int) -> int:
        """How many of `num` samples belong to the shard."""
        return len(range(self.rank, num, self.of))

    def weight(self, num: int) -> float:
        """w such that the mean over ranks of w · (mean over the shard) is the mean over all `num` samples."""
        return self.count(num) * self.of / num


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def this_shard() -> Shard:
    """The shard of this process."""
    return Shard(dist.get_rank(), dist.get_world_size()) if _joined() else Shard()


def is_first() -> bool:
    """Whether this process is rank 0, which writes."""
    return this_shard().rank == 0


def _control() -> Any:
    """The group for tensors on the CPU. All ranks make it at the same call."""
    world = dist.group.WORLD
    return world if dist.get_backend() == "gloo" else _gloo(world)


@lru_cache(maxsize=1)
def _gloo(world: Any) -> Any:
    return dist.new_group(backend="gloo")


def _group_of(tensor: Tensor) -> Any:
    return _control() if tensor.device.type == "cpu" else dist.group.WORLD


def sum_over_ranks_(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over ranks, the same bits on every rank; small ones are reduced as one buffer."""
    if not _joined():
        return
    small: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        if tensor.numel() > SMALL and tensor.is_contiguous():
            dist.all_reduce(tensor, group=_group_of(tensor))
        else:
            small.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for alike in small.values():
        flat = torch.cat([t.detach().reshape(-1) for t in alike])
        dist.all_reduce(flat, group=_group_of(flat))
        for tensor, part in zip(alike, flat.split([t.numel() for t in alike]), strict=True):
            tensor.copy_(part.view_as(tensor))


def mean_over_ranks_(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its mean over ranks."""
    if _joined():
        tensors = list(tensors)
        sum_over_ranks_(tensors)
        for tensor in tensors:
            tensor.div_(dist.get_world_size())


def total_over_ranks(number: int) -> int:
    """The sum of an integer over ranks."""
    return int(_reduced([number], dist.ReduceOp.SUM)[0]) if _joined() else number


def largest_over_ranks(*numbers: int) -> list[int]:
    """The largest of each integer over ranks."""
    return _reduced(numbers, dist.ReduceOp.MAX).tolist() if _joined() else list(numbers)


def _reduced(numbers: Iterable[int], operation: Any) -> Tensor:
    values = torch.tensor(list(numbers), dtype=torch.int64)
    dist.all_reduce(values, operation, group=_control())
    return values


def gathered(tensor: Tensor) -> Tensor:
    """(R, ...) on the CPU: the tensors of all R ranks, which must be equal in shape and dtype."""
    tensor = tensor.detach().cpu()
    if not _joined():
        return tensor.unsqueeze(0)
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.contiguous(), group=_control())
    return torch.stack(parts)


def from_rank_zero(value: Any) -> Any:
    """Rank 0's value, anything that can be pickled; its tensors must lie on the CPU."""
    if not _joined():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, group=_control())
    return values[0]


def copy_from_rank_zero_(tensors: Iterable[Tensor]) -> None:
    """Overwrite each tensor with that of rank 0."""
    if _joined():
        for tensor in tensors:
            dist.broadcast(tensor, src=0, group=_group_of(tensor))


def check_same_on_ranks(tensors: Iterable[Tensor]) -> None:
    """Raise RankError if the sum of a tensor differs between ranks, which would then train different networks."""
    if not _joined():
        return
    sums = gathered(torch.stack([tensor.sum(dtype=torch.float64).cpu() for tensor in tensors]))
    if not bool((sums == sums[0]).all()):
        raise RankError("ranks have different weights or importances: is something in them left to chance?")


def wait_for_all() -> None:
    """Return once every rank has come here."""
    largest_over_ranks(0)


def own_generator(shared: torch.Generator) -> torch.Generator:
    """`shared` on rank 0; on any other rank a generator of its own, seeded by the shared seed and the rank."""
    rank = this_shard().rank
    if rank == 0:
        return shared
    seed = (shared.initial_seed() + rank * 0x9E3779B97F4A7C15) % 2**63
    return torch.Generator(shared.device).manual_seed(seed)


@contextmanager
def losing_contact() -> Iterator[None]:
    """Within the block a collective that fails, for instance because another rank is gone, raises RankError."""
    try:
        yield
    except RuntimeError as error:
        message = str(error)
        if "parameters that were not used" in message:
            needed = "trainer.strategy must be ddp_find_unused_parameters_true"
            raise RankError(f"{needed} for a backbone that does not use all its parameters") from error
        if isinstance(error, dist.DistError) or any(sign in message for sign in LOST):
            who = f"rank {this_shard().rank}" if _joined() else "a rank"
            reason = message.splitlines()[0].rpartition("] ")[2]
            raise RankError(f"{who} has lost contact with another: {reason}") from error
        raise
