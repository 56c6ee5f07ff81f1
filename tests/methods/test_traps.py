"""Mistakes of published code (methods.md, section 12) that the tests of a method or of importance do not show."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor
from torch.testing import assert_close

import tiny
from lifelong.data.examples import Examples
from lifelong.memory.base import Memory
from lifelong.memory.samplers import Uniform
from lifelong.methods.mas import MAS
from lifelong.methods.method import Method
from lifelong.models import evaluation
from lifelong.runs.record import Record
from lifelong.training.checkpoint import Checkpoints
from lifelong.training.checkpoint_files import CheckpointFiles
from tiny import (
    HOLDING,
    make_learner,
    make_penalty,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*")

EXACT = {"rtol": 0.0, "atol": 0.0}


# Importance ---------------------------------------------------------------------------------------------------------


class Spying(MAS):
    """Keeps the samples its importance is computed on."""

    def __init__(self, num_samples: int | None = None) -> None:
        super().__init__(1.0)
        self.seen: list[Examples] = []
        self.num_samples = num_samples

    def importance_of_task(self, learner: Any, batches: Any, generator: torch.Generator) -> dict[str, Tensor]:
        pairs = list(batches)
        images, labels = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        self.seen.append(Examples((images * 255).round().to(torch.uint8), labels))
        return super().importance_of_task(learner, pairs, generator)


def test_trap_importance_on_test_data(tmp_path: Path) -> None:
    """On the task's own training samples as they are, each once: neither test nor validation, nor another task's."""
    stream, penalty = tiny.split("class"), Spying()
    tiny.run(stream, make_learner(stream), penalty, tmp_path)
    for task, seen in enumerate(penalty.seen):
        assert_close(seen.inputs, stream.task(task).train.inputs, **EXACT)
        assert_close(seen.labels, stream.task(task).train.labels, **EXACT)


def test_trap_number_of_samples_without_effect(tmp_path: Path) -> None:
    stream, penalty = tiny.split("class"), Spying(20)
    tiny.run(stream, make_learner(stream), penalty, tmp_path)
    for task, seen in enumerate(penalty.seen):
        labels = stream.task(task).train.labels
        assert len(seen) == 20
        assert seen.labels.tolist() != labels[:20].tolist()  # drawn at random
    for method in ("ewc", "online_ewc", "ewc_dr", "kfac_ewc"):
        assert make_penalty(method, num_samples=7).num_samples == 7


def test_trap_exemplars_of_test_data(tmp_path: Path) -> None:
    stream, memory = tiny.split("class"), Uniform(per_class=5)
    tiny.run(stream, make_learner(stream), Method(), tmp_path, memory=memory)
    assert len(memory.cells) == 6
    for (base, _), images in memory.cells.items():
        known = {image.numpy().tobytes() for image in stream.task(base).train.inputs}
        assert known >= {image.numpy().tobytes() for image in images}


class Modes(Callback):
    """Modes of all modules at each training batch."""

    def __init__(self) -> None:
        self.training: list[bool] = []

    def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.training.append(all(module.training for module in pl_module.modules()))


@pytest.mark.parametrize("method", HOLDING)
def test_trap_model_left_in_eval_mode_or_batch_norm_moved_by_importance(method: str, tmp_path: Path) -> None:
    """Dropout and batch norm train in every step of every task, and 12 batches move the statistics 12 times."""
    stream, modes = tiny.split(), Modes()
    learner = make_learner(stream, "cnn")
    tiny.run(stream, learner, make_penalty(method, strength=0.01), tmp_path, callbacks=[modes])
    assert learner.backbone.body[1].num_batches_tracked == 12
    assert len(modes.training) == 12
    assert all(modes.training)


# What is held -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", HOLDING)
def test_trap_importance_and_anchors_missing_from_checkpoints(method: str, tmp_path: Path) -> None:
    """Neither between tasks nor in one."""
    stream, penalty = tiny.permuted(num_tasks=2), make_penalty(method, strength=0.01)
    learner = make_learner(stream)
    tiny.run(stream, learner, penalty, tmp_path)
    restored, other = make_penalty(method), make_learner(stream)
    checkpoints = Checkpoints(
        CheckpointFiles(tmp_path / "last.ckpt", {}), Record(), Memory(), lambda: 0, every_seconds=1e9
    )
    assert checkpoints.load(other, restored) == 0
    assert_close(restored.importance, penalty.importance, **EXACT)
    assert_close(restored.anchor, penalty.anchor, **EXACT)
    trainer = tiny.make_trainer(penalty, max_steps=2)
    trainer.fit(learner, tiny.Batches(stream.task(1).train, 16, seed=0))
    trainer.save_checkpoint(tmp_path / "in_work.ckpt")
    saved = torch.load(tmp_path / "in_work.ckpt", weights_only=True)["callbacks"][penalty.state_key]
    assert_close(saved, penalty.state_dict(), **EXACT)
    assert set(saved["anchor"]) == {n for n, _ in learner.backbone.named_parameters()}


def test_trap_accuracy_averaged_over_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four right in the first batch, one wrong in the second: 4 of 5, not the half of 1 + 0."""
    monkeypatch.setattr(evaluation, "BATCH_SIZE", 4)
    learner = make_learner(tiny.split())
    learner.backbone.head.weight.data.zero_()
    learner.backbone.head.bias.data = torch.tensor([1.0, 0.0])
    examples = Examples(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 0, 0, 0, 1]))
    assert evaluation.accuracy(learner, examples) == 0.8
