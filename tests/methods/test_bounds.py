"""The bounds: fine-tuning, L2 with all weights equally important, and joint learning on all data so far."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor
from torch.optim import Adam
from torch.testing import assert_close

import tiny
from lifelong.data.stream import Task, TaskStream
from lifelong.metrics import measures
from tiny import learn_by_hand, make_learner, make_penalty

EXACT = {"rtol": 0.0, "atol": 0.0}
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*")


class Labels(Callback):
    """The labels that each task was trained on, and the number of batches of all."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.steps = 0

    def on_train_start(self, *_: Any) -> None:
        self.seen.append([])

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.seen[-1] += batch.y.tolist()
        self.steps += 1


def learned_at_once(scenario: str, root: Path, **trainer: Any) -> tuple[TaskStream, Tensor, list[int], Labels]:
    """The stream, its matrix, the steps after each turn, and what was trained on."""
    stream, labels = tiny.split(scenario), Labels()
    steps: list[int] = []

    def on_row(task: Task) -> None:
        steps.append(labels.steps)

    method = make_penalty("joint", schedule="once")
    learner = make_learner(stream, make_optimizer=partial(Adam, lr=1e-2))
    matrix = tiny.run(stream, learner, method, root, callbacks=[labels], on_row=on_row, **trainer)
    return stream, matrix, steps, labels


@pytest.mark.parametrize("scenario", ["domain", "task", "class"])
def test_joint_at_once_trains_on_the_union_of_all_tasks_at_the_first_turn_alone(scenario: str, tmp_path: Path) -> None:
    """Each sample once an epoch; every row of the matrix is that network's, with all columns that the last one has."""
    stream, matrix, _, labels = learned_at_once(scenario, tmp_path)
    union = torch.cat([stream.task(j).train.labels for j in range(3)])
    assert [sorted(seen) for seen in labels.seen] == [union.sort().values.tolist()]
    assert_close(matrix, matrix[-1].expand(3, 3), **EXACT)
    found = measures(matrix)
    assert found["average_accuracy"] > 0.5  # chance is 1/2 of two columns or 1/6 of six
    assert found["average_accuracy"] == pytest.approx(found["learning_accuracy"], rel=1e-12)
    assert (found["forgetting"], found["backward_transfer"]) == (0, 0)


def test_joint_at_once_has_the_steps_of_all_tasks(tmp_path: Path) -> None:
    """By trainer.max_steps T times as many; by epochs the same number of epochs over the union: 162 samples by 16."""
    assert learned_at_once("domain", tmp_path, epochs=-1, max_steps=7)[2] == [21, 21, 21]
    assert learned_at_once("domain", tmp_path, epochs=2)[2] == [22, 22, 22]


@pytest.mark.parametrize(("method", "num_tasks_of_data"), [("joint", [1, 2, 3]), ("finetune", [1, 1, 1])])
def test_task_is_trained_on(method: str, num_tasks_of_data: list[int], tmp_path: Path) -> None:
    """Joint: every sample of every task so far, once an epoch. Fine-tuning: the task's own."""
    stream, labels = tiny.split("task"), Labels()
    tiny.run(stream, make_learner(stream), make_penalty(method), tmp_path, callbacks=[labels])
    for task, num in enumerate(num_tasks_of_data):
        used = torch.cat([stream.task(j).train.labels for j in range(task + 1 - num, task + 1)])
        assert sorted(labels.seen[task]) == used.sort().values.tolist()


def test_joint_of_one_task_is_finetuning(tmp_path: Path) -> None:
    stream, found = tiny.permuted(num_tasks=1), []
    for method in ("finetune", "joint"):
        learner = make_learner(stream, "cnn", partial(Adam, lr=1e-2))
        matrix = tiny.run(stream, learner, make_penalty(method), tmp_path)
        found.append((matrix, tiny.weights_of(learner)))
    assert_close(found[1], found[0], **EXACT)


@pytest.mark.parametrize("method", ["finetune", "joint"])
def test_bound_without_a_penalty_holds_nothing(method: str) -> None:
    penalty, learner = make_penalty(method), make_learner(tiny.split())
    for task in range(2):
        learn_by_hand(penalty, learner, task)
    assert penalty.state_dict() == {}
    assert penalty.state_bytes() == 0
    assert penalty.measures(learner) == {}


def test_l2_holds_every_weight_alike_at_its_latest_value() -> None:
    penalty, learner = make_penalty("l2"), make_learner(tiny.split())
    for task in range(3):
        learn_by_hand(penalty, learner, task)
        for name, p in learner.backbone.named_parameters():
            assert_close(penalty.importance[name], torch.ones_like(p), **EXACT)
            assert_close(penalty.anchor[name], p.detach(), **EXACT)
