"""Batches from resident tensors: one index_select each, where the model lives. No workers, no per-sample Python.

What is too large to be resident stays in host memory (or on disk, if it is memory-mapped there); a thread gathers the
next batch while the model works on the present one. The batches are the same, bit for bit.
"""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from lifelong.data.examples import Deferred, Examples, as_input
from lifelong.data.seeds import derived_generator
from lifelong.distributed.ranks import Share

DRAWS = 4
"""Keeps the draws of augmentation apart from the other draws of an epoch."""

Gather = Callable[[int], tuple[Tensor, Tensor]]
"""Position of a batch in its epoch → its images and labels, on the device."""
Rows = Callable[[int], slice]
"""Position of a batch in its epoch → where in the epoch's order its samples stand."""
WHOLE = Share()


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
    """Gives Batch(x (B, C, H, W) float32, y (B,)) on `device`; each iteration is the next epoch, even if the one before
    was left early; the last batch may be smaller.

    An epoch's permutation and augmentation are functions of (seed, epoch) alone, so the state is two numbers and a run
    resumes behind the last batch given.

    With a share of several ranks each takes its part of the very batches one process has. A rank that a short batch
    leaves without a sample gets its first one with weight 0, so that it takes part in what all ranks do together.

    Args:
        share: what of each batch is given; batch_size counts the whole.
        as_input: uint8 images → x, on their device.
        augment: applied to every batch; None: the images as they are.
        resident_bytes: larger sets of images are not moved to the device as a whole.

    Raises:
        ValueError: no examples, or batch_size < 1.
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
        share: Share = WHOLE,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be an integer >= 1, got {batch_size!r}")
        if len(examples) == 0:
            raise ValueError("examples must hold at least one example, got none")
        self.device = torch.device(device)
        elsewhere = isinstance(examples, Deferred) or examples.labels.device.type != self.device.type
        self.resident = examples.nbytes <= resident_bytes or not elsewhere
        self.examples = examples.to(device) if self.resident else examples
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle
        self.as_input, self.augment, self.share = as_input, augment, share
        self.epoch = self.position = 0
        self._started = False

    def __len__(self) -> int:
        return -(-len(self.examples) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        if self._started or self.position == len(self):
            self.epoch, self.position = self.epoch + 1, 0
        self._started = True
        order = self._order()
        self._ordered = order.numpy()
        draws = None if self.augment is None else self._draws(len(order), self.augment.num_draws)
        with self._gathering(order) as gather:
            while self.position < len(self):
                images, labels = gather(self.position)
                if self.augment is not None and draws is not None:
                    images = self.augment(images, draws[self._rows(self.position)])
                weight = self._weight(self.position)
                self.position += 1
                yield Batch(self.as_input(images), labels, weight)

    def positions(self, k: int) -> np.ndarray:
        """Where in `examples` the samples of batch k of this epoch stand, those of all ranks."""
        return self._ordered[k * self.batch_size : (k + 1) * self.batch_size]

    def _num(self, k: int) -> int:
        """Samples of batch k, of all ranks together."""
        return len(self.positions(k))

    def _rows(self, k: int) -> slice:
        start, num = k * self.batch_size, self._num(k)
        return self.share.rows(start, start + num) if self.share.count(num) else slice(start, start + 1)

    def _weight(self, k: int) -> float:
        return self.share.weight(self._num(k))

    def _order(self) -> Tensor:
        """Positions of the epoch's examples, one batch after the other, on the CPU."""
        if not self.shuffle:
            return torch.arange(len(self.examples))
        return torch.randperm(len(self.examples), generator=derived_generator(self.seed, self.epoch))

    def _draws(self, num: int, each: int) -> Tensor:
        """(num, each) uniform numbers of the epoch, on the device."""
        return torch.rand(num, each, generator=derived_generator(self.seed, self.epoch, DRAWS)).to(self.device)

    def _gathering(self, order: Tensor) -> AbstractContextManager[Gather]:
        if self.resident:
            return on_device(self.examples, order, self._rows)
        return ahead(self.examples, order, len(self), self._rows, self.device)

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]
        self._started = False


@contextmanager
def on_device(examples: Examples, order: Tensor, rows: Rows) -> Iterator[Gather]:
    """The positions move to the examples."""
    images, labels = examples.images, examples.labels
    order = order.to(labels.device)

    def gather(k: int) -> tuple[Tensor, Tensor]:
        index = order[rows(k)]
        return images.index_select(0, index), labels.index_select(0, index)

    yield gather


@contextmanager
def ahead(examples: Examples, order: Tensor, num_batches: int, rows: Rows, device: torch.device) -> Iterator[Gather]:
    """The examples move to the device, gathered a batch ahead by a thread; a CUDA device copies them from pinned memory
    while it works."""
    waiting: dict[int, Future[tuple[Tensor, Tensor]]] = {}

    def gathered(k: int) -> tuple[Tensor, Tensor]:
        batch = examples.subset(order[rows(k)])
        if device.type == "cuda":
            return batch.images.pin_memory(), batch.labels.pin_memory()
        return batch.images, batch.labels

    with ThreadPoolExecutor(1) as thread:

        def gather(k: int) -> tuple[Tensor, Tensor]:
            images, labels = waiting.pop(k).result() if k in waiting else gathered(k)
            if k + 1 < num_batches:
                waiting[k + 1] = thread.submit(gathered, k + 1)
            return images.to(device, non_blocking=True), labels.to(device, non_blocking=True)

        yield gather
