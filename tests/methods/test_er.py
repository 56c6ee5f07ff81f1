"""ER: the loss of a batch from memory beside the task's, in both weightings."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor
from torch.optim import Adam
from torch.testing import assert_close

import reference
import tiny
from lifelong.data.augment import CropFlip
from lifelong.data.loader import Batch
from lifelong.memory.base import Memory
from lifelong.memory.reservoir import Reservoir
from lifelong.memory.samplers import Uniform
from lifelong.methods.er import ER
from tiny import make_learner, make_penalty

EXACT = {"rtol": 0.0, "atol": 0.0}
MEMORIES = {"uniform": partial(Uniform, per_class=5), "reservoir": partial(Reservoir, 30)}
VISIBLE = {"domain": [0, 1], "task": [0, 1], "class": [0, 1, 2, 3]}
"""Columns that an exemplar of the first task may be among in the second."""


def a_batch(learner: Any, task: Any) -> tuple[Batch, Tensor]:
    train = task.train
    batch = Batch(learner.as_input(train.inputs[:7]), train.labels[:7])
    return batch, learner.logits(batch.x)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("scenario", VISIBLE)
def test_loss_is_the_formula_written_out(scenario: str, memory: str) -> None:
    method = ER(0.7, batch_size=6)
    learner = tiny.replaying(method, MEMORIES[memory](), scenario)
    drawn = method.replayed()
    expected = 0.7 * reference.task_loss(learner.backbone, drawn.x, drawn.y, VISIBLE[scenario])
    assert len(drawn.y) == 6
    assert_close(method.extra_loss(*a_batch(learner, method.task)), expected, rtol=1e-10, atol=0.0)


@pytest.mark.parametrize("strength", [1.0, 0.25])
def test_weights_by_tasks_are_1_and_k_minus_1_of_k(strength: float) -> None:
    """At strength 1 the whole loss is (1/k) own + (1 − 1/k) replayed, k = 2; less is that much nearer to own."""
    method = ER(strength, weight="tasks", batch_size=6)
    learner = tiny.replaying(method, MEMORIES["reservoir"]())
    batch, z = a_batch(learner, method.task)
    own, drawn = learner.task_loss(z, batch.y), method.replayed()
    replayed = reference.task_loss(learner.backbone, drawn.x, drawn.y, VISIBLE["class"])
    mixed = own / 2 + replayed / 2
    assert_close(own + method.extra_loss(batch, z), (1 - strength) * own + strength * mixed, rtol=1e-10, atol=0.0)


def test_weight_by_tasks_is_of_earlier_tasks_and_by_sum_of_all() -> None:
    """A reservoir holds samples of the task in work too."""
    for weight, classes in (("tasks", {0, 1}), ("sum", {0, 1, 2, 3})):
        method, memory = ER(weight=weight, batch_size=99), Reservoir(40)
        tiny.fill(memory, tiny.replaying(method, memory), method.task)
        assert set(method.replayed().y.tolist()) == classes


def test_exemplars_are_augmented_and_made_input_like_a_training_batch() -> None:
    """The same exemplars, once with and once without: the augmentation of the draws of this very batch."""
    method = ER(batch_size=6)
    learner = tiny.replaying(method, MEMORIES["uniform"]())
    plain = method.replayed()
    method.augment = augment = CropFlip()
    g = method.generator()
    torch.randperm(len(method.memory.tasks), generator=g)
    draws = torch.rand(6, augment.num_draws, generator=g)
    images = (plain.x * 255).round().to(torch.uint8)
    assert_close(method.replayed().x, learner.as_input(augment(images, draws)), **EXACT)
    assert not torch.equal(method.replayed().x, plain.x)


def test_draws_are_as_many_as_a_training_batch_unless_told(tmp_path: Path) -> None:
    sizes = []

    class Look(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if method.active:
                sizes.append(len(method.replayed().y))

    stream, method = tiny.split("class"), ER()
    tiny.run(stream, make_learner(stream), method, tmp_path, memory=Uniform(per_class=9), callbacks=[Look()])
    assert set(sizes) == {16}


def test_each_step_of_a_run_draws_anew_by_its_seed(tmp_path: Path) -> None:
    """Two tasks that replay, two epochs, four batches: as many generators, and others under another seed."""
    seen: list[int] = []

    class Look(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if method.active:
                seen.append(method.generator().initial_seed())

    for seed in (0, 1):
        stream, method = tiny.split("class"), ER(batch_size=4)
        (folder := tmp_path / str(seed)).mkdir()
        options = {"memory": Uniform(per_class=9), "callbacks": [Look()], "epochs": 2, "seed": seed}
        tiny.run(stream, make_learner(stream), method, folder, **options)
    assert len(seen) == len(set(seen)) == 2 * 16


class Idle(ER):
    """Fine-tuning that leaves memory alone."""

    active = False  # type: ignore[assignment]


@pytest.mark.parametrize("weight", ["sum", "tasks"])
@pytest.mark.parametrize("memory", MEMORIES)
def test_strength_zero_is_bitwise_fine_tuning_with_the_same_memory(memory: str, weight: str, tmp_path: Path) -> None:
    """With dropout and batch norm; finetune itself would mix what is held into its batches."""
    stream, found = tiny.split("class"), []
    for method in (ER(0.0, weight=weight), Idle(), make_penalty("finetune")):
        held = Memory() if not isinstance(method, ER) else MEMORIES[memory]()
        learner = make_learner(stream, "cnn", partial(Adam, lr=1e-2))
        tiny.run(stream, learner, method, tmp_path, memory=held, epochs=2)
        found.append((tiny.weights_of(learner), held.state_dict()))
    assert_close(found[0], found[1], **EXACT)
    assert_close(found[0][0], found[2][0], **EXACT)


def test_settings_outside_what_is_allowed_are_refused() -> None:
    for settings, message in (
        ({"weight": "mean"}, "method.weight must be one of sum, tasks, got 'mean'"),
        ({"strength": -1}, "strength must be a finite number >= 0"),
        ({"strength": 2, "weight": "tasks"}, "strength must be a finite number"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            ER(**settings)  # type: ignore[arg-type]
        assert "\n" not in str(error.value)
