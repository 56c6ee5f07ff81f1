"""Batches from resident tensors: one index_select each, where the model lives. No workers, no per-sample Python."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lifelong.data.examples import Examples, as_input
from lifelong.data.seeds import derived_generator


class Batches:
    """(x (B, C, H, W) float32 in [0, 1], y (B,)) on `device`; each iteration is the next epoch, even if the one
    before was left early; the last batch may be smaller.

    An epoch's permutation is a function of (seed, epoch) alone, so the state is two numbers and a run resumes behind
    the last batch given.

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
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be an integer >= 1, got {batch_size!r}")
        if len(examples) == 0:
            raise ValueError("examples must hold at least one example, got none")
        self.examples = examples.to(device)
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle
        self.epoch = self.position = 0
        self._started = False

    def __len__(self) -> int:
        return -(-len(self.examples) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self._started or self.position == len(self):
            self.epoch, self.position = self.epoch + 1, 0
        self._started = True
        images, labels = self.examples.images, self.examples.labels
        order = self._order()
        while self.position < len(self):
            start = self.position * self.batch_size
            index = order[start : start + self.batch_size]
            self.position += 1
            yield as_input(images.index_select(0, index)), labels.index_select(0, index)

    def _order(self) -> Tensor:
        if not self.shuffle:
            return torch.arange(len(self.examples), device=self.examples.labels.device)
        order = torch.randperm(len(self.examples), generator=derived_generator(self.seed, self.epoch))
        return order.to(self.examples.labels.device)

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]
        self._started = False
