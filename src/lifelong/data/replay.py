"""Training batches: a task's own examples, with exemplars of earlier tasks among them."""

from typing import Any

import torch
from torch import Tensor

from lifelong.data.examples import Examples
from lifelong.data.loader import Batches, num_batches
from lifelong.data.seeds import derived_generator


def training_batches(
    examples: Examples,
    batch_size: int,
    *,
    seed: int,
    exemplars: Examples | None = None,
    replay: str = "joined",
    **loading: Any,
) -> Batches:
    """The batches a task is trained on, with exemplars of earlier tasks among them if there are any.

    replay: joined: they are examples like the task's own; repeated: likewise, but each ⌊N / M⌋ times, once at least (N
    examples of the task, M exemplars), so that an epoch has more batches; balanced: they are half of every batch.
    """
    if exemplars is None:
        return Batches(examples, batch_size, seed=seed, **loading)
    exemplars = exemplars.to(examples.labels.device)
    if replay == "balanced":
        return BalancedBatches(examples, exemplars, batch_size, seed=seed, **loading)
    times = max(1, len(examples) // len(exemplars)) if replay == "repeated" else 1
    return Batches(Examples.concat([examples, *[exemplars] * times]), batch_size, seed=seed, **loading)


class BalancedBatches(Batches):
    """Each batch is half the task's own examples (the larger half if odd) and half exemplars of earlier tasks.

    As many batches an epoch as without exemplars, so an epoch sees a random half of the task; a task smaller than half
    a batch is seen whole, beside as many exemplars. Exemplars go round in fresh permutations, so that within an epoch
    each is seen equally often, up to one. Order, resuming and what else may be set (`loading`) are as in Batches.
    Raises ValueError for no examples of either kind, or batch_size < 2.
    """

    def __init__(self, own: Examples, exemplars: Examples, batch_size: int, *, seed: int, **loading: Any) -> None:
        if batch_size < 2:
            raise ValueError(f"batch_size must be an integer >= 2 for balanced batches, got {batch_size!r}")
        for name, examples in (("own", own), ("exemplars", exemplars)):
            if len(examples) == 0:
                raise ValueError(f"{name} must hold at least one example, got none")
        super().__init__(Examples.concat([own, exemplars]), batch_size, seed=seed, **loading)
        self.num_own, self.num_exemplars = len(own), len(exemplars)
        self.num_batches = num_batches(len(own), batch_size, loading.get("drop_last", False))

    def _order(self) -> Tensor:
        generator = derived_generator(self.seed, self.epoch)
        num_own = min(self.batch_size - self.batch_size // 2, self.num_own)
        num_replayed = min(self.batch_size // 2, num_own)
        own = torch.randperm(self.num_own, generator=generator)[: len(self) * num_own]
        rounds = -(-len(self) * num_replayed // self.num_exemplars)
        replayed = torch.cat([torch.randperm(self.num_exemplars, generator=generator) for _ in range(rounds)])
        replayed = self.num_own + replayed[: len(self) * num_replayed]
        halves = own.view(len(self), num_own), replayed.view(len(self), num_replayed)
        return torch.cat(halves, dim=1).flatten()
