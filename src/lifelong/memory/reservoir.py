"""A reservoir: a uniform sample of all training samples so far (Vitter 1985, algorithm R)."""

from typing import Any

import torch
from torch import Tensor

from lifelong.data.examples import Examples
from lifelong.data.loader import Batches
from lifelong.distributed.ranks import copy_from_rank_zero_
from lifelong.importance.traceless import as_model_input, leaving_no_trace
from lifelong.memory.base import Held, Learned, Memory

STATE = ("images", "labels", "logits", "tasks", "num_offered", "joined")


class Reservoir(Memory):
    """After n offers each of them is held with probability total/n. Images, labels, task and logits of each.

    The n-th sample takes a slot drawn among n; if there are fewer slots, it is not kept. A sample is offered in the
    first epoch of a task alone, behind its step. Logits are those of the step's end, in eval mode and without
    augmentation (DER's own code keeps those of the training pass, with its dropout).

    A method that does not replay itself trains on the task's data joined with what was held when the task began.

    Args:
        total: samples held at most.

    Raises:
        ValueError: total is no integer >= 1.
    """

    keeps = keeps_logits = offered = True
    tasks = torch.empty(0, dtype=torch.int64)

    def __init__(self, total: int = 500) -> None:
        super().__init__()
        if type(total) is not int or total < 1:
            raise ValueError(f"memory.total must be an integer >= 1, got {total!r}")
        self.total, self.num_offered = total, 0
        self.images, self.labels, self.logits = torch.empty(0), torch.empty(0), torch.empty(0)
        self.joined: list[Tensor] | None = None  # images and labels; part of the state, for `images` changes in a task

    def offer(
        self, learner: Learned, examples: Examples, index: Tensor, task_index: int, generator: torch.Generator
    ) -> None:
        numbers = self.num_offered + torch.arange(len(index))
        self.num_offered += len(index)
        draws = torch.rand(len(index), generator=generator, dtype=torch.float64)
        slots = torch.where(numbers < self.total, numbers, (draws * (numbers + 1)).long())
        kept = (slots < self.total).nonzero().flatten()
        last = dict(zip(slots[kept].tolist(), kept.tolist(), strict=True))  # of two for one slot the later one
        if not last:
            return
        new = examples.subset(index[list(last.values())].to(examples.labels.device))
        entries = {"images": new.images, "labels": new.labels, "logits": logits_of(learner, new.images)}
        for name, rows in {**entries, "tasks": torch.full((len(new),), task_index)}.items():
            setattr(self, name, _written(getattr(self, name), torch.tensor(list(last)), rows))

    def after_task(self, learner: Learned, train: Examples, task_index: int, generator: torch.Generator) -> None:
        self.joined = None

    @property
    def examples(self) -> Examples | None:
        return Examples(self.images, self.labels) if len(self.labels) else None

    def held(self, device: torch.device) -> Held | None:
        self.images, self.labels, self.logits = (t.to(device) for t in (self.images, self.labels, self.logits))
        return Held(Examples(self.images, self.labels), self.logits) if len(self.labels) else None

    def batches(self, train: Examples, batch_size: int, *, seed: int, **loading: Any) -> Batches:
        if self.joined is None:
            self.joined = [self.images.clone(), self.labels.clone()]
        if len(self.joined[1]):
            train = Examples.concat([train, Examples(*self.joined).to(train.labels.device)])
        return Batches(train, batch_size, seed=seed, **loading)

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in STATE:
            setattr(self, name, state[name])

    def state_bytes(self) -> int:
        return sum(t.nbytes for t in (self.images, self.labels, self.logits, self.tasks))


def logits_of(learner: Learned, images: Tensor) -> Tensor:
    """z (B, K) in eval mode; on every rank rank 0's, for statistics of batch norm may differ."""
    x = learner.as_input(images.to(learner.visible.device))
    with leaving_no_trace(learner.backbone), torch.no_grad():
        z: Tensor = learner.backbone(as_model_input(learner.backbone, x))
    copy_from_rank_zero_([z])
    return z


def _written(held: Tensor, slots: Tensor, rows: Tensor) -> Tensor:
    """`held` with the rows in these slots, longer if there are slots behind its end."""
    longer = int(slots.max()) + 1 - len(held)
    if longer > 0:
        old = held.to(rows.device) if len(held) else rows[:0]
        held = torch.cat([old, rows.new_empty(longer, *rows.shape[1:])])
    held[slots.to(held.device)] = rows.to(held.device)
    return held
