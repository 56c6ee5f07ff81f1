"""What a learner says on each task of a stream, entered as for a test."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW

import tiny
from lifelong.data.stream import Task, TaskStream
from lifelong.methods.method import Method
from lifelong.models.learner import Learner

OPTIMIZERS: dict[str, Any] = {
    "momentum": partial(SGD, lr=0.05, momentum=0.9),
    "adam": partial(Adam, lr=1e-2),
    "weight decay": partial(AdamW, lr=1e-2, weight_decay=0.1),
}


def make_stream(order: str | None = None) -> TaskStream:
    """Three tasks of two classes, in task-incremental learning."""
    return tiny.split("task", order=order)


@torch.no_grad()
def test_logits(stream: TaskStream, learner: Learner, method: Method, task: int) -> Tensor:
    """(N, K) on the task's test images; −inf on other tasks' columns."""
    shown, was_training = learner.visible.nonzero().flatten().tolist(), learner.training
    learner.eval().show(stream.visible(task, task))
    method.enter(stream.task(task))
    z = learner(learner.as_input(stream.task(task).test.inputs))
    method.enter(None)
    learner.train(was_training).show(shown)
    return z


test_logits.__test__ = False  # type: ignore[attr-defined]


def learned(
    method: Method,
    folder: Path,
    network: str = "mlp",
    optimizer: str = "adam",
    order: str | None = None,
    **options: Any,
) -> Any:
    """Learn the stream: the learner, the accuracy matrix and [k][j] logits of task j after task k, j <= k."""
    stream, said = make_stream(order), []
    learner = tiny.make_learner(stream, network, OPTIMIZERS[optimizer])

    def on_row(task: Task) -> None:
        said.append([test_logits(stream, learner, method, j) for j in range(task.index + 1)])

    matrix = tiny.run(stream, learner, method, folder, on_row=on_row, **options)
    return learner, matrix, said
