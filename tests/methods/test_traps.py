"""Mistakes of published code (methods.md, section 12), each with a test that it would fail."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn
from torch.testing import assert_close

import tiny
from lifelong.data.examples import Examples
from lifelong.memory.base import Memory
from lifelong.methods.ewc import EWC
from lifelong.methods.mas import MAS
from lifelong.methods.online_ewc import OnlineEWC
from lifelong.models import evaluation
from lifelong.runs.record import Record
from lifelong.training.checkpoint import Checkpoints
from lifelong.training.checkpoint_files import CheckpointFiles
from tiny import (
    HOLDING,
    added_gradient,
    learn_by_hand,
    make_learner,
    make_penalty,
    moved_off,
    random_batches,
    tensors_in,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*")

EXACT = {"rtol": 0.0, "atol": 0.0}
FLOAT32 = {"rtol": 1e-4, "atol": 1e-8}  # float32 sums in another order
PER_SAMPLE = ["ewc", "online_ewc", "mas", "ewcpp", "rwalk"]


def importance_of(method: str, learner: Any, batches: list[tiny.Pair], **settings: Any) -> dict[str, Tensor]:
    """A task's importance before it is merged; for EWC++ and RWalk the Fisher of one step's batches."""
    penalty: Any = make_penalty(method, **settings)
    if method in ("ewcpp", "rwalk"):
        return penalty.fisher_of(learner, batches)
    return penalty.importance_of_task(learner, batches, torch.Generator().manual_seed(0))


# Importance ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["mas", "ewc", "online_ewc"])
def test_trap_past_tasks_are_summed_once(method: str) -> None:
    """A running sum appended to a list and summed again weighs the tasks 4, 2, 1, 1."""
    penalty = make_penalty(method)
    for task in range(4):
        penalty.merge({"w": torch.eye(4)[task]}, {"w": torch.zeros(4)})
    assert penalty.importance["w"].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("network", list(tiny.NETWORKS))
@pytest.mark.parametrize("method", PER_SAMPLE)
def test_trap_squared_mean_gradient_of_a_batch(method: str, network: str) -> None:
    """A batch of eight is the mean of eight batches of one: no square and no abs after a mean over samples."""
    learner = make_learner(tiny.split(), network)
    x, y = random_batches(1, 2)[0]
    alone = [importance_of(method, learner, [(x[n : n + 1], y[n : n + 1])]) for n in range(8)]
    mean = {name: torch.stack([each[name] for each in alone]).mean(0) for name in alone[0]}
    assert_close(importance_of(method, learner, [(x, y)]), mean, **FLOAT32)
    assert_close(importance_of(method, learner, [(x[:3], y[:3]), (x[3:], y[3:])]), mean, **FLOAT32)


@pytest.mark.parametrize("labels", ["exact", "empirical"])
def test_trap_batch_flattened_into_one_softmax(labels: str) -> None:
    """Softmax regression has a closed form per sample; one softmax over B · K logits has p of the order of 1/B."""
    learner = make_learner(tiny.split("class"))
    learner.backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 6))
    x, y = random_batches(1, 6)[0]
    p = learner.backbone(x).softmax(1).detach()
    score = p * (1 - p) if labels == "exact" else (p - torch.eye(6)[y]) ** 2
    got = importance_of("ewc", learner, [(x, y)], labels=labels)
    assert_close(got["1.weight"], (score[:, :, None] * x.flatten(1)[:, None] ** 2).mean(0))
    assert_close(got["1.bias"], score.mean(0))


@pytest.mark.parametrize("seed", range(4))
def test_trap_more_than_one_label_sampled_per_input(seed: int) -> None:
    """Two classes, the same input N = 7 times: the bias's Fisher is m (1 − p)² + (7 − m) p² sevenths, m whole."""
    learner = make_learner(tiny.split())
    x = random_batches(1, 2)[0][0][:1].repeat(7, 1, 1, 1)
    penalty = EWC(1.0, labels="sampled")
    generator = torch.Generator().manual_seed(seed)
    got = penalty.importance_of_task(learner, [(x, torch.zeros(7, dtype=torch.int64))], generator)["head.bias"][0]
    p = learner.backbone(x)[0].softmax(0)[0].detach()
    drawn = (7 * got - 7 * p**2) / ((1 - p) ** 2 - p**2)
    assert float(drawn) == pytest.approx(round(float(drawn)), abs=1e-3)
    assert 0 <= round(float(drawn)) <= 7


def test_trap_mas_of_the_last_task_only() -> None:
    penalty, learner = MAS(1.0), make_learner(tiny.split())
    own = []
    for task in range(3):
        learn_by_hand(penalty, learner, task)
        own.append(importance_of("mas", learner, random_batches(4, 2, seed=task)))
    assert_close(penalty.importance, {n: own[0][n] + own[1][n] + own[2][n] for n in own[0]})


class Spying(MAS):
    """Keeps the samples its importance is computed on."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.seen: list[Examples] = []

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


class Modes(Callback):
    """Modes of all modules at each training batch."""

    def __init__(self) -> None:
        self.training: list[bool] = []

    def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.training.append(all(module.training for module in pl_module.modules()))


@pytest.mark.parametrize("method", HOLDING)
def test_trap_model_left_in_eval_mode(method: str, tmp_path: Path) -> None:
    """Dropout and batch norm train in every step of every task, behind every importance pass."""
    stream, modes = tiny.split(), Modes()
    tiny.run(stream, make_learner(stream, "cnn"), make_penalty(method, strength=0.01), tmp_path, callbacks=[modes])
    assert len(modes.training) == 12
    assert all(modes.training)


@pytest.mark.parametrize("method", HOLDING)
def test_trap_batch_norm_moved_by_importance(method: str, tmp_path: Path) -> None:
    """12 training batches move the statistics 12 times."""
    stream = tiny.split()
    learner = make_learner(stream, "cnn")
    tiny.run(stream, learner, make_penalty(method, strength=0.01), tmp_path)
    assert learner.backbone.body[1].num_batches_tracked == 12


# What is held -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_trap_online_penalty_is_silently_zero(gamma: float) -> None:
    """From the first task on there is a pull off the anchor, in value and in gradient."""
    penalty, learner = OnlineEWC(1.0, gamma=gamma), make_learner(tiny.split())
    for task in range(2):
        learn_by_hand(penalty, learner, task)
        moved_off(learner)
        assert float(penalty.value(learner.backbone)) > 1e-4
        assert all(float(g.abs().max()) > 0 for g in added_gradient(penalty, learner).values())


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


@pytest.mark.parametrize("method", HOLDING)
def test_trap_copies_of_the_model_for_every_task(method: str) -> None:
    penalty, learner = make_penalty(method, strength=0.01), make_learner(tiny.split())
    sizes = []
    for task in range(4):
        learn_by_hand(penalty, learner, task)
        sizes.append(sum(t.numel() for t in tensors_in(list(vars(penalty).values()))))
    assert sizes[1:] == [sizes[1]] * 3


def test_trap_accuracy_averaged_over_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four right in the first batch, one wrong in the second: 4 of 5, not the half of 1 + 0."""
    monkeypatch.setattr(evaluation, "BATCH_SIZE", 4)
    learner = make_learner(tiny.split())
    learner.backbone.head.weight.data.zero_()
    learner.backbone.head.bias.data = torch.tensor([1.0, 0.0])
    examples = Examples(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 0, 0, 0, 1]))
    assert evaluation.accuracy(learner, examples) == 0.8
