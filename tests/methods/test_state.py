"""What a penalty holds: saved and restored bit by bit, in the middle of a task too, and not more with every task."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torch.optim import SGD, Adam
from torch.testing import assert_close

import tiny
from lifelong.methods.penalty import Penalty
from tiny import (
    HOLDING,
    METHODS,
    PENALTIES,
    drive,
    fit,
    learn_by_hand,
    make_learner,
    make_penalty,
    random_batches,
    tensors_in,
)

EXACT = {"rtol": 0.0, "atol": 0.0}


def through_a_file(state: dict[str, Any], path: Path) -> dict[str, Any]:
    torch.save(state, path)
    return torch.load(path, weights_only=True)


def started(method: str) -> tuple[Penalty, Any]:
    """One task learned and a second in work, its fourth step behind it: an interval is open."""
    penalty, learner = make_penalty(method, strength=1.0), make_learner(tiny.split())
    learn_by_hand(penalty, learner, 0)
    drive(penalty, learner, random_batches(4, 2, seed=1), SGD(learner.parameters(), lr=0.05))
    return penalty, learner


@pytest.mark.parametrize("method", METHODS)
def test_state_survives_a_file_bit_by_bit(method: str, tmp_path: Path) -> None:
    penalty = started(method)[0] if method in PENALTIES else make_penalty(method)
    restored = make_penalty(method)
    restored.load_state_dict(through_a_file(penalty.state_dict(), tmp_path / "state"))
    assert_close(restored.state_dict(), penalty.state_dict(), **EXACT)
    state = list(penalty.state_dict().values())
    assert restored.state_bytes() == penalty.state_bytes() == sum(t.nbytes for t in tensors_in(state))


@pytest.mark.parametrize("method", PENALTIES)
def test_everything_that_training_changes_is_in_the_state(method: str) -> None:
    """Beside its state a penalty holds only tensors of the step in work, and the weights themselves."""
    penalty, fresh = started(method)[0], make_penalty(method)
    momentary = {"_params", "_raw", "_before", "_batches"}
    for name in set(vars(penalty)) - set(penalty.state) - momentary:
        assert_close(tensors_in(getattr(penalty, name)), tensors_in(getattr(fresh, name, None)), **EXACT)


class StopAfter(Callback):
    """Writes a checkpoint after some steps and ends the fit there."""

    def __init__(self, num_steps: int, path: Path) -> None:
        self.num_steps, self.path = num_steps, path

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.num_steps:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
@pytest.mark.parametrize("method", PENALTIES)
def test_lightning_resumes_a_task_bit_by_bit(method: str, tmp_path: Path) -> None:
    """Killed in the second task's 5th of 8 steps; a new process would have a new learner, penalty and Trainer."""
    stream, results = tiny.split(), []
    make = partial(make_learner, stream, make_optimizer=partial(Adam, lr=1e-2))
    for killed in (False, True):
        learner, penalty = make(), make_penalty(method, strength=1.0)
        fit(learner, penalty, stream.task(0).train, penalty)
        tiny.keep(learner, penalty, stream.task(0).train)
        batches = tiny.Batches(stream.task(1).train, 16, seed=0)
        if killed:
            path = tmp_path / "in_work.ckpt"
            tiny.make_trainer(penalty, StopAfter(5, path), epochs=2).fit(learner, batches)
            learner, penalty = make(), make_penalty(method, strength=1.0)
            batches = tiny.Batches(stream.task(1).train, 16, seed=0)
            tiny.make_trainer(penalty, epochs=2).fit(learner, batches, ckpt_path=path, weights_only=True)
        else:
            tiny.make_trainer(penalty, epochs=2).fit(learner, batches)
        tiny.keep(learner, penalty, stream.task(1).train)
        results.append((penalty.state_dict(), tiny.weights_of(learner)))
    assert_close(results[1], results[0], **EXACT)


# Memory -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", PENALTIES)
def test_fifty_tasks_hold_as_much_as_two(method: str) -> None:
    """No copies per task, in the state or beside it."""
    penalty, learner = make_penalty(method, strength=1.0), make_learner(tiny.split())
    num_weights = sum(p.numel() for p in learner.backbone.parameters())
    held = []
    for task in range(50):
        learn_by_hand(penalty, learner, task, num_steps=3, lr=0.01)
        sizes = sorted(t.numel() for t in tensors_in(list(vars(penalty).values())))
        held.append((penalty.state_bytes(), sizes))
    assert all(h == held[1] for h in held[2:])
    if method in HOLDING:
        assert penalty.state_bytes() <= 4 * (4 * num_weights + 8)  # at most Ω, θ*, F and s in float32


@pytest.mark.parametrize("method", sorted(set(HOLDING) - {"si", "rwalk"}))
def test_method_without_a_path_pays_nothing_at_each_step(method: str) -> None:
    """Weights and gradients are copied at each step only for a method that looks at steps."""
    penalty, _ = started(method)
    assert not penalty._raw
    assert not penalty._before


@pytest.mark.parametrize("method", ["ewcpp", "rwalk"])
def test_batches_are_kept_for_one_step_at_most(method: str) -> None:
    penalty, learner = started(method)
    assert penalty._batches == []
    seen = []
    looking = type(penalty).before_step

    def look(self: Penalty, model: nn.Module, batches: list[tiny.Pair]) -> None:
        seen.append(len(batches))
        looking(self, model, batches)  # type: ignore[attr-defined]

    penalty.before_step = look.__get__(penalty)
    drive(penalty, learner, random_batches(6, 2), SGD(learner.parameters(), lr=0.01))
    assert seen == [0, 0, 1, 0, 0, 1]
