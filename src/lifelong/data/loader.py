"""Batches from resident tensors: one index_select each, where the model lives. No workers, no per-sample Python.

What is too large to be resident stays in host memory (or on disk, if it is memory-mapped there); a thread gathers the
next batch while the model works on the present one. The batches are the same, bit for bit.
"""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from lifelong.data.examples import Examples, as_input
from lifelong.data.seeds import derived_generator
from lifelong.distributed.ranks import Shard

DRAWS = 4
"""Keeps the draws of augmentation apart from the order of an epoch. (A method's draws at batch 4 are of one stream with
them, which changes no distribution.)"""

WHOLE = Shard()


class Batch(NamedTuple):
    """x (B, ...) and y (B,), and the weight of this rank's shard: the mean over ranks of weight · (mean over x) is the
    mean over the whole batch. It is 1 with one rank; 0 says that the one sample only keeps this rank in step."""

    x: Tensor
    y: Tensor
    weight: float = 1.0

    @property
    def counted(self) -> tuple[Tensor, Tensor]:
        """x and y of the samples that count."""
        num = len(self.y) if self.weight else 0
        return self.x[:num], self.y[:num]


class Augment(Protocol):
    """Another view of the same images: a function of them and of `num_draws` uniform numbers for each."""

    num_draws: int

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """images (B, C, H, W) uint8, draws (B, num_draws) in [0, 1) → images of the same shape and type."""


class Batches:
    """Gives Batch(x (B, ...), y (B,)) on `device`; each iteration is the next epoch, even if the one before was left
    early; the last batch may be smaller.

    An epoch's permutation and augmentation are functions of (seed, epoch) alone, so the state is two numbers and a run
    resumes behind the last batch given. Each of several ranks takes its part of the very batches one process has. A
    rank that a short batch leaves without a sample gets its first one with weight 0, to take part in what all do.

    Args:
        shard: what of each batch is given; batch_size counts the whole.
        as_input: stored inputs → x, on their device.
        augment: applied to every batch, of images; None: the inputs as they are.
        resident_bytes: larger sets are not moved to the device as a whole.
        drop_last: leave out a last batch that would be smaller.

    Raises:
        ValueError: no examples, or batch_size < 1, or no batch that is full where only full ones are given.
    """

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        shuffle: bool = True,
        as_input: Callable[[Tensor], Tensor] = as_input,
        augment: Augment | None = None,
        resident_bytes: float = math.inf,
        shard: Shard = WHOLE,
        drop_last: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be an integer >= 1, got {batch_size!r}")
        if len(examples) == 0:
            raise ValueError("examples must hold at least one example, got none")
        self.device = torch.device(device)
        elsewhere = examples.lazy or examples.labels.device.type != self.device.type
        self.resident = examples.nbytes <= resident_bytes or not elsewhere
        self.examples = examples.to(device) if self.resident else examples
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle
        self.as_input, self.augment, self.shard = as_input, augment, shard
        self.epoch = self.position = 0
        self._started = False
        self.num_batches = num_batches(len(examples), batch_size, drop_last)

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Batch]:
        if self._started or self.position == len(self):
            self.epoch, self.position = self.epoch + 1, 0
        self._started = True
        order = self._order()
        self._ordered = order.numpy()
        draws = self._draws(len(order))
        for k, (inputs, labels) in enumerate(self._gathered(order), self.position):
            rows, weight = self._rows(k)
            if self.augment is not None:
                inputs = self.augment(inputs, draws[rows])
            self.position = k + 1
            yield Batch(self.as_input(inputs), labels, weight)

    def positions(self, k: int) -> np.ndarray:
        """Where in `examples` the samples of batch k of this epoch stand, those of all ranks."""
        return self._ordered[k * self.batch_size : (k + 1) * self.batch_size]

    def _rows(self, k: int) -> tuple[slice, float]:
        """Of the epoch's order, what this rank is given of batch k, and with which weight."""
        start, num = k * self.batch_size, len(self.positions(k))
        rows = self.shard.rows(start, start + num) if self.shard.count(num) else slice(start, start + 1)
        return rows, self.shard.weight(num)

    def _order(self) -> Tensor:
        """Positions of the epoch's examples, one batch after the other, on the CPU."""
        if not self.shuffle:
            return torch.arange(len(self.examples))
        return torch.randperm(len(self.examples), generator=derived_generator(self.seed, self.epoch))

    def _draws(self, num: int) -> Tensor:
        """(num, num_draws) uniform numbers of the epoch for its augmentation, on the device."""
        each = self.augment.num_draws if self.augment else 0
        return torch.rand(num, each, generator=derived_generator(self.seed, self.epoch, DRAWS)).to(self.device)

    def _gathered(self, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Stored inputs and labels of the batches from the position on, on the device. Where the examples are resident,
        positions move to them; else batches move to the device, gathered one ahead by a thread. A CUDA device copies
        them from pinned memory while it works."""
        order = order.to(self.examples.labels.device)

        def selected(k: int) -> tuple[Tensor, Tensor]:
            batch = self.examples.subset(order[self._rows(k)[0]])
            pinned = self.device.type == "cuda" and not self.resident
            return (batch.inputs.pin_memory(), batch.labels.pin_memory()) if pinned else (batch.inputs, batch.labels)

        batches = range(self.position, len(self))
        if self.resident:
            yield from map(selected, batches)
            return
        with ThreadPoolExecutor(1) as thread:
            ahead = thread.submit(selected, batches[0])
            for k in batches:
                inputs, labels = ahead.result()
                if k + 1 in batches:
                    ahead = thread.submit(selected, k + 1)
                yield inputs.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]
        self._started = False


def num_batches(num: int, batch_size: int, drop_last: bool) -> int:
    """Batches an epoch of `num` examples has; raises ValueError if no batch would be full."""
    if drop_last and num < batch_size:
        raise ValueError(f"drop_last must be false where {num} examples do not fill a batch of {batch_size}, got true")
    return num // batch_size if drop_last else -(-num // batch_size)
