"""A stack that is interrupted goes on from the very step, as a stack or run by run, and takes up runs from alone."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from lifelong.methods.si import SI
from lifelong.runs.checksum import load_with_checksum
from lifelong.runs.interrupted import Interrupted
from lifelong.stacked.stack import Fit
from lifelong.tracking import read_history
from runs import NUM_STEPS, TINY, Killed, Said, assert_same_run, at_every_batch, command, run
from stacks import (
    CNN,
    assert_equal_runs,
    at_every_step,
    interrupted_stack,
    last_line,
    member,
    stacked,
    terminate,
    without_pictures,  # noqa: F401 - a fixture
)

pytestmark = pytest.mark.system
ALL = "2 jobs: 2 trained, 0 finished before, 0 failed"


def one_by_one(root: Path, *settings: str) -> Said:
    return command("-m", *TINY, f"root={root}", *settings)


def interrupted_alone(root: Path, step: int, *settings: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        at_every_batch(patch, lambda _, done: terminate(step)(done))
        with pytest.raises(Interrupted):
            run(root, *settings)


@pytest.mark.parametrize("again", [stacked, one_by_one])
@pytest.mark.parametrize(
    ("step", "settings"),
    [
        (8, ("method=si", "keep_optimizer=true")),
        (9, ("method=rwalk", "method.interval=2", "method.window=interval", "scheduler=cosine")),  # an epoch's last
        (11, ("method=ewc", "optimizer=sgd", "optimizer.momentum=0.9", "keep_optimizer=epoch")),
        (10, (*CNN, "method=ewcpp", "method.interval=2")),
        (NUM_STEPS, ("method=mas",)),  # the last one
    ],
    ids=str,
)
def test_interrupted_stack_goes_on_from_the_very_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: Callable[..., Said], step: int, settings: Sequence[str]
) -> None:
    sweep, made = (*settings, "seed=0,1"), []
    interrupted_stack(tmp_path / "stack", step, *sweep)
    at_every_step(monkeypatch, made.append)
    at_every_batch(monkeypatch, lambda _, done: made.append(done))
    assert last_line(again(tmp_path / "stack", *sweep)) == ALL
    assert made == [*range(step + 1, NUM_STEPS + 1)] * (1 if again is stacked else 2)
    alone = run(tmp_path / "alone", *settings, "seed=1")
    assert_equal_runs(member(tmp_path / "stack", alone), alone)


def test_stack_takes_up_runs_that_were_interrupted_alone(tmp_path: Path) -> None:
    """Those that stand at the same step; another one goes on alone, bit for bit."""
    settings = ("method=si", "scheduler=cosine")
    for seed, step in enumerate((8, 8, 10)):
        interrupted_alone(tmp_path / "stack", step, *settings, f"seed={seed}")
    said = stacked(tmp_path / "stack", *settings, "seed=0,1,2")
    assert "train together, 2 runs: jobs 0–1" in said.out
    assert "run alone (no other run stacks with it): job 2" in said.out
    for seed, is_equal in ((1, assert_equal_runs), (2, assert_same_run)):
        alone = run(tmp_path / "alone", *settings, f"seed={seed}")
        is_equal(member(tmp_path / "stack", alone), alone)


def test_killed_stack_goes_on_from_the_last_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As kill -9; rows that were written after the save are written once."""
    sweep, made = ("method=si", "checkpoint_steps=2", "seed=0,1"), []

    def kill(done: int) -> None:
        made.append(done)
        if done == 11 and made.count(11) == 1:
            raise Killed

    at_every_step(monkeypatch, kill)
    with pytest.raises(Killed):
        stacked(tmp_path / "stack", *sweep)
    assert last_line(stacked(tmp_path / "stack", *sweep)) == ALL
    assert made == [*range(1, 12), 11, 12]
    alone = run(tmp_path / "alone", *sweep[:-1], "seed=1")
    assert_equal_runs(member(tmp_path / "stack", alone), alone)
    steps = [row["step"] for row in read_history(member(tmp_path / "stack", alone).folder / "history.jsonl")]
    assert steps == sorted(steps)


TWO_STACKS = ("method=si,ewc", "seed=0,1", "hydra.launcher.n_jobs=2", "hydra.launcher.size=2")


def test_stacks_train_in_worker_processes(tmp_path: Path) -> None:
    said = stacked(tmp_path / "stack", *TWO_STACKS)
    assert last_line(said) == "4 jobs: 4 trained, 0 finished before, 0 failed", said.err
    assert "train together, 2 runs: jobs 2–3\ntrain together, 2 runs: jobs 0–1\n" in said.out
    alone = run(tmp_path / "alone", "method=si", "seed=1")
    assert_equal_runs(member(tmp_path / "stack", alone), alone)


@pytest.mark.parametrize(
    ("ended", "code", "message"),
    [
        (lambda: os.kill(os.getppid(), signal.SIGTERM), 128 + signal.SIGTERM, "interrupted by SIGTERM; the same"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), 1, "error: a worker process was stopped; the same"),
    ],
    ids=["the command is stopped", "a worker is killed"],
)
def test_workers_end_with_their_command_and_with_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: Callable[[], None], code: int, message: str
) -> None:
    """When all have learned a task. The same sweep goes on after it, or from the step that was saved."""
    original = Fit._step

    def stopped(self: Fit, *batch: Any) -> None:
        if self.index == 1 and self.step == 3:
            one = isinstance(self.runs[0].method, SI)
            while one and len(list(tmp_path.glob("stack/*/*/last.ckpt"))) < 4:
                time.sleep(0.02)
            if one:
                ended()
            while not self.keeper.signum:
                time.sleep(0.02)
        original(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(Fit, "_step", stopped)
        said = stacked(tmp_path / "stack", *TWO_STACKS)
    assert (said.code, active_children()) == (code, [])
    assert said.err.startswith(message)
    assert not list(tmp_path.glob("stack/*/*/error.txt"))
    assert last_line(stacked(tmp_path / "stack", *TWO_STACKS)) == "4 jobs: 4 trained, 0 finished before, 0 failed"
    alone = run(tmp_path / "alone", "method=si", "seed=1")
    assert_equal_runs(member(tmp_path / "stack", alone), alone)


@pytest.mark.parametrize(
    ("step", "settings"),
    [
        (7, ("method=si", "optimizer=sgd")),
        (9, ("method=ewc", "scheduler=cosine")),
        (10, ("method=ewcpp", "method.interval=2", "method.window=interval", "log_every_n_steps=3")),
        (12, ("method=finetune",)),
        (11, ("method=mas", "scheduler=cosine", "trainer.max_epochs=-1", "trainer.max_steps=7")),
        (14, ("method=mas", "trainer.max_epochs=-1", "trainer.max_steps=7")),
    ],
    ids=str,
)
def test_checkpoint_of_a_member_is_the_one_of_its_run_alone(tmp_path: Path, step: int, settings: Sequence[str]) -> None:
    """In every entry; numbers differ by rounding."""
    interrupted_stack(tmp_path / "stack", step, *settings, "seed=0,1")
    interrupted_alone(tmp_path / "alone", step, *settings, "seed=1")
    (path,) = tmp_path.glob("alone/*/*/last.ckpt")
    theirs = load_with_checksum(path)
    ours = load_with_checksum(tmp_path / "stack" / path.relative_to(tmp_path / "alone"))
    assert list(ours) == list(theirs)
    assert torch.equal(ours["rng"], theirs["rng"])
    for key in ours.keys() - {"rng", "record", "history_bytes"}:  # seconds, and digits that numbers have in the history
        assert_near(ours[key], theirs[key])
    for tensor in ours["state_dict"].values():
        assert tensor.untyped_storage().nbytes() == tensor.nbytes, "it is saved without the other members'"


def assert_near(one: Any, other: Any) -> None:
    """Tensors and numbers within rounding, all else equal."""
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_near(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for ours, theirs in zip(one, other, strict=True):
            assert_near(ours, theirs)
    elif isinstance(one, torch.Tensor):
        assert_close(one, other, rtol=1e-3, atol=1e-5)
    else:
        assert one == (pytest.approx(other) if isinstance(one, float) else other)
