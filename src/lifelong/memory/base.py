"""What is kept of earlier tasks and how it is replayed; a sampler says which examples are chosen.

Legend: B batch, D features, K output columns, N candidates of one class, m exemplars of one cell.
A cell is a (task, class) pair, class = output column.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from lifelong.data.examples import Examples
from lifelong.distributed.ranks import from_rank_zero
from lifelong.importance.traceless import as_model_input, leaving_no_trace

REPLAYS = ("joined", "repeated", "balanced")
BATCH_SIZE = 2048
NEEDED: dict[str, tuple[Any, str]] = {
    "features": (Callable, "features(x) → (B, D)"),
    "head": (nn.Linear, "head, an nn.Linear over the K columns"),
}


class Learned(Protocol):
    """What a memory may ask of the learner."""

    backbone: Any  # an nn.Module; a sampler's `needs` says what else it must have
    as_input: Callable[[Tensor], Tensor]  # images uint8 → what the backbone takes

    @property
    def visible(self) -> Tensor: ...  # (K,) bool: output columns that compete now


class ExemplarError(RuntimeError):
    """The scores by which exemplars are chosen are not finite."""


class Exemplars(NamedTuple):
    """N exemplars and, where they are kept, their logits (N, K) of when they were chosen."""

    examples: Examples
    logits: Tensor | None = None


class Memory:
    """Images by cell. As it stands it keeps nothing; every memory has this interface."""

    keeps: ClassVar[bool] = False  # exemplars
    keeps_logits: ClassVar[bool] = False
    offered: ClassVar[bool] = False  # training samples: what it holds then changes within a task
    replay: str = "joined"
    """How the exemplars come into the training batches, unless the method draws them itself; see `training_batches`."""

    def __init__(self) -> None:
        self.cells: dict[tuple[int, int], Tensor] = {}
        """(task, class) → images (m, C, H, W) uint8, best first: any prefix of a cell is a choice by the same rule."""

    def check(self, backbone: nn.Module, *, num_cells: int, batch_size: int) -> None:
        """Raises ValueError unless the memory can work with this backbone, a stream of so many cells, such batches."""

    def after_task(self, learner: Learned, train: Examples, task_index: int, generator: torch.Generator) -> None:
        """Keep some of the task's training examples. `generator` is a CPU one; the learner is left as it was.

        task_index: of the base task; a later visit to the task replaces what was kept at the last.
        """

    def offer(self, learner: Learned, examples: Examples, index: np.ndarray, task_index: int, seed: int) -> None:
        """Take up some of the samples just trained on, which stand at `index` (B,) of `examples`; called after each
        batch of a task's first epoch if `offered`, on every rank with the samples of all ranks.

        task_index: position of the task in the stream; seed: of what is drawn. The learner is left as it was.
        """

    @property
    def tasks(self) -> np.ndarray:
        """(N,) int64: the task each of `examples` was kept at."""
        counts = [len(images) for images in self.cells.values()]
        return np.repeat(np.array([task for task, _ in self.cells], np.int64), counts)

    def exemplars(self, device: torch.device) -> Exemplars | None:
        """All exemplars, on the device; None before the first."""
        return Exemplars(self.examples.to(device)) if self.examples else None

    def for_training(self) -> Examples | None:
        """What is mixed into the batches of the task that starts or resumes, if the method does not draw it itself."""
        return self.examples

    @property
    def examples(self) -> Examples | None:
        """All exemplars, in the order they were kept; None before the first."""
        if not self.cells:
            return None
        counts = torch.tensor([len(images) for images in self.cells.values()])
        labels = torch.tensor([label for _, label in self.cells]).repeat_interleave(counts)
        images = torch.cat(list(self.cells.values()))
        return Examples(images, labels.to(images.device))

    def state_dict(self) -> dict[str, Any]:
        return {"cells": dict(self.cells)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.cells = dict(state["cells"])

    def state_bytes(self) -> int:
        return sum(images.nbytes for images in self.cells.values())


class ExemplarMemory(Memory):
    """Base of all samplers: m exemplars per cell, drawn ∝ `scores` without replacement unless `choose` says otherwise.

    In class- and task-incremental learning a class belongs to one task, so a cell is a class. In domain-incremental
    learning each task brings the same columns again, and every task keeps its own exemplars of each.

    Args:
        per_class: exemplars of each cell; null with `total`.
        total: exemplars of all cells together, shared evenly among those seen so far: older cells shrink to their
            first ones as new ones come. The cells' shares differ by at most one. Null with `per_class`.
        replay: "joined" the exemplars are part of the training data; "repeated" likewise, each as often as makes
            them as many as the task's own examples; "balanced" they are half of every batch.

    A cell with fewer examples than its share keeps them all, and no other cell gets the rest.

    Raises:
        ValueError: a setting outside what is allowed.
    """

    keeps = True
    needs: ClassVar[tuple[str, ...]] = ()
    """What of NEEDED the backbone must have."""

    def __init__(self, per_class: int | None = 20, total: int | None = None, replay: str = "joined") -> None:
        super().__init__()
        for key, value in (("per_class", per_class), ("total", total)):
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"memory.{key} must be an integer >= 1 or null, got {value!r}")
        if (per_class is None) == (total is None):
            raise ValueError(
                "memory.per_class must be null if memory.total is set, and one of the two must be, "
                f"got per_class={per_class!r} and total={total!r}"
            )
        if replay not in REPLAYS:
            raise ValueError(f"memory.replay must be one of {', '.join(REPLAYS)}, got {replay!r}")
        self.per_class, self.total, self.replay = per_class, total, replay

    def scores(self, learner: Learned, candidates: Examples) -> Tensor:
        """(N,) float64 >= 0: how likely each candidate, all of one class, is to be drawn, up to a factor."""
        raise NotImplementedError

    def choose(self, learner: Learned, candidates: Examples, num: int, generator: torch.Generator) -> Tensor:
        """Positions (num,) of different candidates, best first; num <= N."""
        return drawn(self.scores(learner, candidates), num, generator)

    def check(self, backbone: nn.Module, *, num_cells: int, batch_size: int) -> None:
        for name in self.needs:
            kind, description = NEEDED[name]
            if not isinstance(getattr(backbone, name, None), kind):
                raise ValueError(
                    f"memory {type(self).__name__} must have a backbone with {description}, "
                    f"got {type(backbone).__name__} without"
                )
        if self.total is not None and self.total < num_cells:
            raise ValueError(
                f"memory.total must be at least one for each of the {num_cells} (task, class) pairs of the stream, "
                f"got {self.total}"
            )
        if self.replay == "balanced" and batch_size < 2:
            raise ValueError(f"batch_size must be an integer >= 2 with memory.replay=balanced, got {batch_size}")

    def quota(self, position: int, num_cells: int) -> int:
        """m of the cell that came as number `position` when there are so many; never more than among fewer."""
        return self.per_class or -((position - self.total) // num_cells)  # type: ignore[operator]

    def after_task(self, learner: Learned, train: Examples, task_index: int, generator: torch.Generator) -> None:
        """Shrink the older cells to their share and choose those of this task, in the order of their columns.

        Every rank keeps what rank 0 chooses: where a GPU rounds differently twice, a close choice could differ.

        Raises:
            ExemplarError: what the choice rests on is not finite.
        """
        classes = train.labels.unique().tolist()
        older = [(cell, images) for cell, images in self.cells.items() if cell[0] != task_index]
        num_cells = len(older) + len(classes)
        self.cells = {cell: images[: self.quota(i, num_cells)].clone() for i, (cell, images) in enumerate(older)}
        with leaving_no_trace(learner.backbone), torch.no_grad():
            for label in classes:
                candidates = train.subset((train.labels == label).nonzero().flatten())
                num = min(self.quota(len(self.cells), num_cells), len(candidates))
                chosen = from_rank_zero(self.choose(learner, candidates, num, generator).cpu())
                self.cells[task_index, label] = candidates.inputs[chosen.to(candidates.inputs.device)]


def drawn(weights: Tensor, num: int, generator: torch.Generator) -> Tensor:
    """Positions (num,) drawn one after the other without replacement, each ∝ weights (N,) >= 0 among those left.

    Once only zeros are left they are equally likely. The order is that of the draws, so a prefix is a smaller draw.

    Raises:
        ExemplarError: a weight is not finite.
    """
    likely, others = checked(weights).nonzero().flatten(), (weights == 0).nonzero().flatten()
    others = others[torch.randperm(len(others), generator=generator)]
    if len(likely):
        likely = likely[torch.multinomial(weights[likely], min(num, len(likely)), generator=generator)]
    return torch.cat([likely, others])[:num]


def in_batches(function: Callable[[Tensor], Tensor], learner: Learned, candidates: Examples) -> Tensor:
    """function(x) (B, ·) of all candidates, in large batches on the learner's device; (N, ·) float64 on the CPU.

    Raises:
        ExemplarError: a value is NaN or infinite.
    """
    like = next(learner.backbone.parameters())
    chunks = (learner.as_input(images.to(like.device)) for images in candidates.inputs.split(BATCH_SIZE))
    return checked(torch.cat([function(as_model_input(learner.backbone, x)).cpu().double() for x in chunks]))


def checked(values: Tensor) -> Tensor:
    """`values`, if they are finite."""
    if not bool(torch.isfinite(values).all()):
        raise ExemplarError("exemplars cannot be chosen by values that are not finite: has the task's loss diverged?")
    return values
