"""The bounds: fine-tuning, L2 with all weights equally important, and joint learning on all data so far."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch.optim import Adam
from torch.testing import assert_close

import tiny
from tiny import learn_by_hand, make_learner, make_penalty

EXACT = {"rtol": 0.0, "atol": 0.0}
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*")


class Labels(Callback):
    """The labels that each task was trained on."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def on_train_start(self, *_: Any) -> None:
        self.seen.append([])

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.seen[-1] += batch.y.tolist()


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
