"""A reservoir: a uniform sample of all training samples so far (Vitter 1985, algorithm R)."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lifelong.data.examples import Examples
from lifelong.distributed.ranks import copy_from_rank_zero_
from lifelong.importance.traceless import as_model_input, leaving_no_trace
from lifelong.memory.base import Exemplars, Learned, Memory

STATE = ("images", "labels", "logits", "num_offered", "joined")


class Reservoir(Memory):
    """After n offers each of them is kept with probability total/n. Images, labels, task and logits of each.

    The n-th sample takes a slot drawn among n; if there are fewer slots, it is not kept. A sample is offered in the
    first epoch of a task alone, after its step. Logits are those of the step's end, in eval mode and without
    augmentation (DER's own code keeps those of the training pass, with its dropout).

    A method that does not replay itself trains on the task's data joined with what was kept before the task began.

    Args:
        total: samples kept at most.

    Raises:
        ValueError: total is no integer >= 1.
    """

    keeps = keeps_logits = offered = True
    tasks = np.empty(0, np.int64)

    def __init__(self, total: int = 500) -> None:
        super().__init__()
        if type(total) is not int or total < 1:
            raise ValueError(f"memory.total must be an integer >= 1, got {total!r}")
        self.total, self.num_offered = total, 0
        self.images, self.labels, self.logits = torch.empty(0), torch.empty(0), torch.empty(0)
        self.joined: list[Tensor] | None = None  # images and labels; part of the state, for `images` changes in a task

    def offer(self, learner: Learned, examples: Examples, index: np.ndarray, task_index: int, seed: int) -> None:
        numbers = self.num_offered + np.arange(len(index))
        self.num_offered += len(index)
        slots = np.where(numbers < self.total, numbers, np.random.default_rng(seed).integers(0, numbers + 1))
        (kept,) = np.nonzero(slots < self.total)
        last = dict(zip(slots[kept].tolist(), index[kept].tolist(), strict=True))  # of two for a slot the later one
        if not last:
            return
        new = examples.subset(torch.tensor(list(last.values())).to(examples.labels.device))
        entries = {"images": new.inputs, "labels": new.labels, "logits": logits_of(learner, new.inputs)}
        for name, rows in entries.items():
            setattr(self, name, _written(getattr(self, name), list(last), rows))
        self.tasks = np.resize(self.tasks, len(self.labels))
        self.tasks[list(last)] = task_index

    def after_task(self, learner: Learned, train: Examples, task_index: int, generator: torch.Generator) -> None:
        self.joined = None

    @property
    def examples(self) -> Examples | None:
        return Examples(self.images, self.labels) if len(self.labels) else None

    def exemplars(self, device: torch.device) -> Exemplars | None:
        self.images, self.labels, self.logits = (t.to(device) for t in (self.images, self.labels, self.logits))
        return Exemplars(Examples(self.images, self.labels), self.logits) if len(self.labels) else None

    def for_training(self) -> Examples | None:
        if self.joined is None:
            self.joined = [self.images.clone(), self.labels.clone()]
        return Examples(*self.joined) if len(self.joined[1]) else None

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in STATE} | {"tasks": torch.from_numpy(self.tasks)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in STATE:
            setattr(self, name, state[name])
        self.tasks = state["tasks"].numpy()

    def state_bytes(self) -> int:
        return sum(t.nbytes for t in (self.images, self.labels, self.logits, self.tasks))


def logits_of(learner: Learned, images: Tensor) -> Tensor:
    """z (B, K) in eval mode; on every rank rank 0's, for statistics of batch norm may differ."""
    x = learner.as_input(images.to(learner.visible.device))
    with leaving_no_trace(learner.backbone), torch.no_grad():
        z: Tensor = learner.backbone(as_model_input(learner.backbone, x))
    copy_from_rank_zero_([z])
    return z


def _written(kept: Tensor, slots: list[int], rows: Tensor) -> Tensor:
    """`kept` with the rows in these slots, longer if there are slots beyond its end."""
    longer = max(slots) + 1 - len(kept)
    if longer > 0:
        begin = kept.to(rows.device) if len(kept) else rows[:0]
        kept = torch.cat([begin, rows.new_empty(longer, *rows.shape[1:])])
    kept[torch.tensor(slots).to(kept.device)] = rows.to(kept.device)
    return kept
