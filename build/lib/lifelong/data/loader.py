"""Batches from resident tensors: one index_select each, where the model lives. No workers, no per-sample Python.

What is too large to be resident stays in host memory (or on disk, if it is memory-mapped there); a thread gathers the
next batch while the model works on the present one. The batches are the same, bit for bit.
"""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch
from torch import Tensor

from lifelong.data.examples import Deferred, Examples, as_input
from lifelong.data.seeds import derived_generator

DRAWS = 4
"""Keeps the draws of augmentation apart from the other draws of an epoch."""

Gather = Callable[[int], tuple[Tensor, Tensor]]
"""Position of a batch in its epoch → its images and labels, on the device."""


class Augment(Protocol):
    """Another view of the same images: a function of them and of `num_draws` uniform numbers for each."""

    num_draws: int

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """images (B, C, H, W) uint8, draws (B, num_draws) in [0, 1) → images of the same shape and type."""


class Batches:
    """(x (B, C, H, W) float32, y (B,)) on `device`; each iteration is the next epoch, even if the one before was left
    early; the last batch may be smaller.

    An epoch's permutation and augmentation are functions of (seed, epoch) alone, so the state is two numbers and a run
    resumes behind the last batch given.

    Args:
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
        self.as_input, self.augment = as_input, augment
        self.epoch = self.position = 0
        self._started = False

    def __len__(self) -> int:
        return -(-len(self.examples) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self._started or self.position == len(self):
            self.epoch, self.position = self.epoch + 1, 0
        self._started = True
        order = self._order()
        draws = None if self.augment is None else self._draws(len(order), self.augment.num_draws)
        with self._gathering(order) as gather:
            while self.position < len(self):
                images, labels = gather(self.position)
                if self.augment is not None and draws is not None:
                    start = self.position * self.batch_size
                    images = self.augment(images, draws[start : start + self.batch_size])
                self.position += 1
                yield self.as_input(images), labels

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
            return on_device(self.examples, order, self.batch_size)
        return ahead(self.examples, order, self.batch_size, self.device)

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]
        self._started = False


@contextmanager
def on_device(examples: Examples, order: Tensor, batch_size: int) -> Iterator[Gather]:
    """The positions move to the examples."""
    images, labels = examples.images, examples.labels
    order = order.to(labels.device)

    def gather(k: int) -> tuple[Tensor, Tensor]:
        index = order[k * batch_size : (k + 1) * batch_size]
        return images.index_select(0, index), labels.index_select(0, index)

    yield gather


@contextmanager
def ahead(examples: Examples, order: Tensor, batch_size: int, device: torch.device) -> Iterator[Gather]:
    """The examples move to the device, gathered a batch ahead by a thread; a CUDA device copies them from pinned memory
    while it works."""
    batches = order.split(batch_size)
    waiting: dict[int, Future[tuple[Tensor, Tensor]]] = {}

    def gathered(k: int) -> tuple[Tensor, Tensor]:
        batch = examples.subset(batches[k])
        if device.type == "cuda":
            return batch.images.pin_memory(), batch.labels.pin_memory()
        return batch.images, batch.labels

    with ThreadPoolExecutor(1) as thread:

        def gather(k: int) -> tuple[Tensor, Tensor]:
            images, labels = waiting.pop(k).result() if k in waiting else gathered(k)
            if k + 1 < len(batches):
                waiting[k + 1] = thread.submit(gathered, k + 1)
            return images.to(device, non_blocking=True), labels.to(device, non_blocking=True)

        yield gather
