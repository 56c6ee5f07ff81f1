"""What can go wrong while a run works: one line, the right exit code, and nothing that was good is lost.

More of it in test_bad_folders.py (folders, full disks), test_checkpoint_files.py (damage), test_kills.py,
test_importance_memory.py and tests/data.
"""

import errno
import os
import signal
import time
from itertools import count, cycle, product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from grids import grid
from lifelong.experiment.run import Result
from lifelong.models.learner import Learner
from lifelong.runs import atomic
from lifelong.runs.checksum import load_with_checksum
from lifelong.training.checkpoint import Checkpoints
from runs import TINY, Said, assert_same_run, at_every_batch, command, run

SETTINGS = ("backbone.dropout=0.2", "checkpoint_steps=1")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run(tmp_path_factory.mktemp("whole"), *SETTINGS)


def train(root: Path, *settings: str) -> Said:
    return command(*TINY, *SETTINGS, f"root={root}", *settings)


def checkpoint_of(root: Path) -> dict[str, Any]:
    return load_with_checksum(next(root.rglob("last.ckpt")))


def step_of(checkpoint: dict[str, Any]) -> int:
    return checkpoint["record"]["step"] + checkpoint.get("global_step", 0)


# Diverged -----------------------------------------------------------------------------------------------------------


def nan_from(patch: pytest.MonkeyPatch, step: int) -> None:
    """The loss of the step after so many steps of the stream, and of all that follow, is nan."""
    original = Learner.training_step

    def training_step(self: Learner, batch: Any, batch_idx: int) -> Tensor:
        loss = original(self, batch, batch_idx)
        (checkpoints,) = (c for c in self.trainer.callbacks if isinstance(c, Checkpoints))  # type: ignore[attr-defined]
        return loss * float("nan") if checkpoints.record.step + self.trainer.global_step >= step else loss

    patch.setattr(Learner, "training_step", training_step)


NANS = [(7, "task 2, rot30"), (5, "task 1, rot0"), (11, "task 2, rot30"), (1, "task 1, rot0")]


@pytest.mark.parametrize(("step", "task"), grid(NANS, NANS[:2]))
def test_nan_loss_is_said_with_step_and_task_again_and_again_and_the_good_checkpoint_stands(
    step: int, task: str, whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are logged every 10 steps: the checkpoint, or the end of the task, sees it first."""
    with monkeypatch.context() as patch:
        nan_from(patch, step)
        for again in (False, True):
            said = train(tmp_path, "log_every_n_steps=10")
            (folder,) = (path.parent for path in tmp_path.rglob("last.ckpt"))
            out = f"continues, {int(task[5]) - 1} of 2 tasks learned: {folder}\n" if again else ""
            assert said == Said(1, out, f"error: train/loss is nan at step {step + 1} ({task})\n")
            assert step_of(checkpoint_of(tmp_path)) == step
    assert all(w.isfinite().all() for w in checkpoint_of(tmp_path)["state_dict"].values())
    assert torch.equal(run(tmp_path, *SETTINGS, "log_every_n_steps=10").matrix, whole.matrix)


def test_nan_at_the_end_of_a_task_is_not_taken_into_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a row nor a checkpoint is due before the task ends, and fine-tuning computes nothing of its weights."""
    nan_from(monkeypatch, 5)
    settings = (*TINY, "method=finetune", "log_every_n_steps=10", f"root={tmp_path}")
    for _ in range(2):
        assert command(*settings) == Said(1, "", "error: train/loss is nan at step 6 (task 1, rot0)\n")
    assert not list(tmp_path.rglob("last.ckpt"))


def test_weights_that_are_no_longer_finite_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of the step that broke them was still a number."""
    seen: list[Learner] = []
    original = Learner.training_step

    def training_step(self: Learner, *arguments: Any) -> Tensor:
        seen.append(self)
        return original(self, *arguments)

    def overflow(_: Any, done: int) -> None:
        if done == 8:
            seen[-1].backbone.head.weight.data[0, 0] = float("inf")  # type: ignore[union-attr]

    monkeypatch.setattr(Learner, "training_step", training_step)
    at_every_batch(monkeypatch, overflow)
    said = train(tmp_path)
    assert said == Said(1, "", "error: backbone.head.weight is not finite at step 8 (task 2, rot30)\n")
    assert step_of(checkpoint_of(tmp_path)) == 7


# The clock ----------------------------------------------------------------------------------------------------------


def test_clock_that_jumps_changes_nothing(whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Back by years and forth again with every look at it; seconds are counted by a clock that cannot be set."""
    looks, seen = count(), []
    original = Checkpoints._save_in_work

    def noted(self: Checkpoints, trainer: Any) -> None:
        seen.append(trainer.global_step)
        original(self, trainer)

    monkeypatch.setattr(time, "time", lambda: 1.7e9 + (-1) ** next(looks) * 1e8)
    monkeypatch.setattr(Checkpoints, "_save_in_work", noted)
    result = run(tmp_path, SETTINGS[0], "checkpoint_seconds=3600")
    assert seen == []
    assert_same_run(result, whole)
    assert 0 < result.metrics["train_seconds"] < 1e6  # the clock jumps by 1e8


# Signals ------------------------------------------------------------------------------------------------------------


SIGNALS = [(signal.SIGTERM, 1, 8, 8), (signal.SIGINT, 2, 8, 7), (signal.SIGINT, 1, 8, 8), (signal.SIGINT, 2, 1, None)]


@pytest.mark.parametrize(("signum", "times", "step", "saved"), grid(SIGNALS, SIGNALS[:2]))
def test_first_signal_saves_at_the_end_of_the_step_and_a_second_does_not_wait(
    signum: int,
    times: int,
    step: int,
    saved: int | None,
    whole: Result,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(_: Any, done: int) -> None:
        if done == step:
            for _ in range(times):
                signal.raise_signal(signum)

    with monkeypatch.context() as patch:
        at_every_batch(patch, stop)
        said = train(tmp_path)
    (folder,) = (tmp_path / "default").iterdir()
    then = "continues" if saved else "starts over (nothing was saved yet)"
    name = signal.Signals(signum).name
    assert said == Said(128 + signum, "", f"interrupted by {name}; the same command {then}: {folder}\n")
    assert not saved or step_of(checkpoint_of(tmp_path)) == saved
    assert_same_run(run(tmp_path, *SETTINGS), whole)


# Files --------------------------------------------------------------------------------------------------------------


NAMES = ("config.yaml", "last.ckpt", "model.pt", "accuracy_matrix.csv", "metrics.json")
NUMBERS = (errno.ENOSPC, errno.EROFS, errno.EIO)


@pytest.mark.parametrize(
    ("name", "number"), grid(product(NAMES, NUMBERS), list(zip(NAMES, cycle(NUMBERS), strict=False)))
)
def test_file_that_cannot_be_written_is_named_and_the_same_command_continues(
    name: str, number: int, whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = os.replace

    def fails(source: Any, target: Any) -> None:
        if Path(target).name == name:
            raise OSError(number, os.strerror(number))
        original(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "replace", fails)
        said = train(tmp_path)
    folder = next((tmp_path / "default").iterdir())
    assert said == Said(1, "", f"error: {folder / name}: {os.strerror(number)}\n")
    assert not list(folder.glob(".*.tmp"))
    assert not (folder / "metrics.json").exists()
    assert_same_run(run(tmp_path, *SETTINGS), whole)
