"""Whole runs that take a fraction of a second, and the command train.py in this process."""

import contextlib
import copy
import functools
import io
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import train as script
from omegaconf import DictConfig
from torch.testing import assert_close

from lifelong.experiment.errors import composed
from lifelong.experiment.run import Result, run_experiment
from lifelong.runs.checksum import load_with_checksum
from lifelong.runs.interrupted import Interrupted
from lifelong.tracking import read_history
from lifelong.training.checkpoint import Checkpoints

TINY = (
    "dataset/source=digits",
    "dataset.source.test_fraction=0.8",  # 323 training samples: three batches of 128
    "dataset.angles=[0,30]",
    "backbone.widths=[16]",
    "optimizer.lr=0.01",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "log_every_n_steps=2",
    "logger=none",
    "progress=false",
)
NUM_STEPS = 12
"""Of a tiny run: 2 tasks of 2 epochs of 3 batches."""


composed_once = functools.cache(composed)


def composed_tiny(root: Path, *overrides: str) -> DictConfig:
    """The configuration of a tiny run; Hydra composes it once."""
    config = copy.deepcopy(composed_once((*TINY, *overrides)))
    config.root = str(root)
    return config


def run(root: Path, *overrides: str) -> Result:
    """lifelong.run of a tiny run."""
    return run_experiment(composed_tiny(root, *overrides))


@dataclass(frozen=True)
class Said:
    """What a command ended with: exit code and the text of both streams."""

    code: int
    out: str
    err: str


def command(*arguments: str) -> Said:
    """`python train.py *arguments`, in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", *arguments])
        try:
            script.main()
        except SystemExit as exit:
            if isinstance(exit.code, str):  # as the interpreter does
                print(exit.code, file=sys.stderr)
            code = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    return Said(code, out.getvalue(), err.getvalue())


def refused(said: Said) -> str:
    """The one line of a refusal."""
    assert said.code == 1
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    return said.err.removeprefix("error: ").rstrip("\n")


def weights(result: Result) -> dict[str, torch.Tensor]:
    return torch.load(result.folder / "model.pt", weights_only=True)["state_dict"]


def assert_same_run(one: Result, other: Result) -> None:
    """Bit for bit: accuracies, weights, exemplars, and every row of the history."""
    assert torch.equal(one.matrix, other.matrix)
    memories = (load_with_checksum(result.folder / "last.ckpt")["memory"] for result in (one, other))
    for ours, theirs in ((weights(one), weights(other)), memories):
        assert_close(ours, theirs, rtol=0, atol=0)
    assert read_history(one.folder / "history.jsonl") == read_history(other.folder / "history.jsonl")


def assert_refused(root: Path, arguments: str, message: str) -> None:
    """The command ends in one line that begins so, and writes nothing."""
    said = command(*TINY, f"root={root}", *arguments.split())
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(f"error: {message}")
    assert said.err.count("\n") == 1
    assert not any(root.iterdir())


def assert_resumes(patch: pytest.MonkeyPatch, root: Path, steps: Sequence[int], *settings: str) -> None:
    """A run that SIGTERM stops after each of these steps, issued again each time, equals an uninterrupted one."""
    whole, left = run(root / "whole", *settings), set(steps)

    def terminate_once(_: Any, done: int) -> None:
        if done in left:
            left.remove(done)
            signal.raise_signal(signal.SIGTERM)

    at_every_batch(patch, terminate_once)
    for _ in steps:
        with pytest.raises(Interrupted):
            run(root / "resumed", *settings)
    assert_same_run(run(root / "resumed", *settings), whole)


def at_every_batch(patch: pytest.MonkeyPatch, action: Callable[[Any, int], None]) -> None:
    """Call action(checkpoints, steps done of the whole stream) at every batch's end, before checkpoints are made."""
    original = Checkpoints.on_train_batch_end

    def acting(self: Checkpoints, trainer: Any, *rest: Any) -> None:
        action(self, self.record.step + trainer.global_step)
        original(self, trainer, *rest)

    patch.setattr(Checkpoints, "on_train_batch_end", acting)


class Killed(BaseException):
    """As kill -9."""


def run_killed(root: Path, *overrides: str, step: int = 8) -> None:
    """A tiny run that is killed at the end of a step, before a checkpoint is made there."""

    def kill(_: Any, done: int) -> None:
        if done == step:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        at_every_batch(patch, kill)
        with pytest.raises(Killed):
            run(root, *overrides)
