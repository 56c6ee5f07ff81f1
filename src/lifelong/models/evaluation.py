"""Accuracy of a learner on the tasks of a stream, in large batches and without gradients."""

from collections.abc import Callable
from operator import attrgetter

import torch
from torch import Tensor

from lifelong.data.examples import Examples
from lifelong.data.stream import Task, TaskStream
from lifelong.distributed.ranks import copy_from_rank_zero_, this_shard, total_over_ranks
from lifelong.models.learner import Learner

BATCH_SIZE = 2048


def accuracy(learner: Learner, examples: Examples) -> float:
    """Share of examples whose largest visible logit is their label's; nan if there are none. The same on all ranks."""
    if len(examples) == 0:
        return float("nan")
    return total_over_ranks(num_correct(learner, examples, this_shard().rows(0, len(examples)))) / len(examples)


@torch.no_grad()
def num_correct(learner: Learner, examples: Examples, rows: slice) -> int:
    """How many of the examples at these rows are classified rightly. The learner's mode is as before afterwards."""
    was_training = learner.training
    learner.eval()
    correct = torch.zeros((), dtype=torch.int64, device=learner.device)
    for chunk in examples.chunks(BATCH_SIZE, rows):
        chunk = chunk.to(learner.device)
        predicted = learner(learner.as_input(chunk.inputs)).argmax(dim=1)
        correct += (predicted == chunk.labels).sum()
    learner.train(was_training)
    return int(correct)


def accuracy_row(
    learner: Learner,
    stream: TaskStream,
    learned: int,
    part: str | Callable[[Task], Examples],
    tasks: range | None = None,
    enter: Callable[[Task | None], object] = lambda task: None,
) -> Tensor:
    """(T,) float64: accuracy on `part` of each task after tasks 0..learned; nan outside `tasks`.

    part: "val", "test", or what gives a task's examples.
    enter: called with each task before it is tested, and with None at the end.

    Visits to one task share data and columns, so they are tested once. The columns visible to the learner are as before
    afterwards. Running statistics become those of rank 0, which training alone leaves different on each rank.
    """
    copy_from_rank_zero_(learner.backbone.buffers())
    examples = part if callable(part) else attrgetter(part)
    found: dict[int, float] = {}
    row = torch.full((stream.num_tasks,), torch.nan, dtype=torch.float64)
    shown = learner.visible.nonzero().flatten().tolist()
    for j in range(stream.num_tasks) if tasks is None else tasks:
        task = stream.task(j)
        if task.base not in found:
            learner.show(stream.visible(learned, j))
            enter(task)
            found[task.base] = accuracy(learner, examples(task))
        row[j] = found[task.base]
    enter(None)
    learner.show(shown)
    return row
