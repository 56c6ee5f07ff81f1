"""Several processes, the ranks, that learn one run together. With one process all functions here do nothing.

Every rank computes the same; what is divided among them is the samples of a batch. What is all-reduced says sum or
largest in its name. Small numbers go over a group on the CPU (gloo), so that no GPU is waited for.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

LOST = ("gloo", "NCCL", "Connection closed", "Connection reset", "Broken pipe", "Timed out", "timed out", "store")
"""What the messages of a failed collective have in common: torch raises plain RuntimeErrors for most."""
SMALL = 2**18
"""Numbers in a tensor up to which a copy costs less than a journey of its own."""
_control_groups: dict[Any, Any] = {}


class RankError(RuntimeError):
    """A rank failed, was killed, or can no longer be reached."""


@dataclass(frozen=True)
class Share:
    """What rank `rank` of `of` takes of anything that all of them divide: every `of`-th, beginning with number `rank`.

    Not a contiguous part: a balanced batch is half replayed, and so is then every share of it.
    """

    rank: int = 0
    of: int = 1

    def rows(self, start: int, stop: int) -> slice:
        """Of the rows start..stop − 1."""
        return slice(start + self.rank, stop, self.of)

    def count(self, num: int) -> int:
        """How many of `num`."""
        return len(range(self.rank, num, self.of))

    def weight(self, num: int) -> float:
        """w with mean over ranks of w · (mean over the rank's samples) = mean over all `num` samples."""
        return self.count(num) * self.of / num


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def this_share() -> Share:
    """The share of this process."""
    return Share(dist.get_rank(), dist.get_world_size()) if _joined() else Share()


def is_first() -> bool:
    """Whether this process is rank 0, which writes."""
    return this_share().rank == 0


def _control() -> Any:
    """The group for what lies on the CPU. All ranks come here first at the same point, as making it takes them all."""
    world = dist.group.WORLD
    if dist.get_backend() == "gloo":
        return world
    if world not in _control_groups:
        _control_groups.clear()
        _control_groups[world] = dist.new_group(backend="gloo")
    return _control_groups[world]


def _group_of(tensor: Tensor) -> Any:
    return _control() if tensor.device.type == "cpu" else dist.group.WORLD


def sum_over_ranks_(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over ranks, the same bits on every rank; small ones travel as one buffer."""
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
        held = list(tensors)
        sum_over_ranks_(held)
        for tensor in held:
            tensor.div_(dist.get_world_size())


def total_over_ranks(number: int) -> int:
    """Sum of a whole number over ranks."""
    return int(_reduced([number], dist.ReduceOp.SUM)[0]) if _joined() else number


def largest_over_ranks(*numbers: int) -> list[int]:
    """The largest of each whole number over ranks."""
    return _reduced(numbers, dist.ReduceOp.MAX).tolist() if _joined() else list(numbers)


def _reduced(numbers: Iterable[int], operation: Any) -> Tensor:
    values = torch.tensor(list(numbers), dtype=torch.int64)
    dist.all_reduce(values, operation, group=_control())
    return values


def gathered(tensor: Tensor) -> Tensor:
    """(R, ...) on the CPU: the tensor of every rank, equal in shape and dtype."""
    tensor = tensor.detach().cpu()
    if not _joined():
        return tensor.unsqueeze(0)
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.contiguous(), group=_control())
    return torch.stack(parts)


def from_rank_zero(value: Any) -> Any:
    """Rank 0's value, whatever can be pickled; tensors must lie on the CPU."""
    if not _joined():
        return value
    held = [value]
    dist.broadcast_object_list(held, src=0, group=_control())
    return held[0]


def copy_from_rank_zero_(tensors: Iterable[Tensor]) -> None:
    """Overwrite each tensor with that of rank 0."""
    if _joined():
        for tensor in tensors:
            dist.broadcast(tensor, src=0, group=_group_of(tensor))


def check_same_on_ranks(tensors: Iterable[Tensor]) -> None:
    """Raises RankError unless the tensors are the same on all ranks, by their sums: each would go on to another end."""
    if not _joined():
        return
    sums = gathered(torch.stack([tensor.sum(dtype=torch.float64).cpu() for tensor in tensors]))
    if not bool((sums == sums[0]).all()):
        raise RankError("ranks have come to different weights or importances: is something in them left to chance?")


def wait_for_all() -> None:
    """Go on when every rank has come here."""
    largest_over_ranks(0)


def own_generator(shared: torch.Generator) -> torch.Generator:
    """`shared` on rank 0; on another rank one whose draws are its own, a function of the shared seed and the rank."""
    rank = this_share().rank
    if rank == 0:
        return shared
    seed = (shared.initial_seed() + rank * 0x9E3779B97F4A7C15) % 2**63
    return torch.Generator(shared.device).manual_seed(seed)


@contextmanager
def losing_contact() -> Iterator[None]:
    """Within the block: RankError in place of what a collective raises, e.g. when another rank is gone."""
    try:
        yield
    except RuntimeError as error:
        message = str(error)
        if "parameters that were not used" in message:
            needed = "trainer.strategy must be ddp_find_unused_parameters_true"
            raise RankError(f"{needed} for a backbone that does not use all its parameters") from error
        if isinstance(error, dist.DistError) or any(sign in message for sign in LOST):
            who = f"rank {this_share().rank}" if _joined() else "a rank"
            reason = message.splitlines()[0].rpartition("] ")[2]
            raise RankError(f"{who} has lost contact with another: {reason}") from error
        raise
