"""Sweeps of tiny runs that train stacked, and what each of them is compared with: its run alone."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lifelong.experiment.result import read_result
from lifelong.runs.folder import RunFolder
from lifelong.stacked.stack import Fit
from lifelong.tracking import read_history
from runs import TINY, Result, Said, command, weights

CNN = ("backbone=cnn", "~backbone.widths", "backbone.channels=[4,8]", "backbone.hidden=16")
"""Instead of the perceptron."""


@pytest.fixture(scope="module", autouse=True)
def without_pictures() -> None:
    """Leave the pictures: stacked runs draw them in processes of their own."""


def stacked(root: Path, *settings: str) -> Said:
    return command("-m", *TINY, "hydra/launcher=stacked", "hydra.launcher.n_jobs=1", f"root={root}", *settings)


def last_line(said: Said) -> str:
    return said.out.splitlines()[-1]


def member(root: Path, alone: Result) -> Result:
    """The stacked run of the same settings."""
    return read_result(RunFolder(root / "default" / alone.folder.name))


def assert_equal_runs(one: Result, alone: Result) -> None:
    """Weights within 1e-5, relative: both sum the same float32 numbers in other orders. Accuracies could differ by a
    tie; in these runs none does."""
    ours, theirs = weights(one), weights(alone)
    assert ours.keys() == theirs.keys()
    for name, w in theirs.items():
        assert float((ours[name] - w).norm() / w.norm()) < 1e-5, name
    assert torch.equal(one.matrix, alone.matrix)
    assert one.metrics.keys() == alone.metrics.keys()
    assert {p.name for p in one.folder.iterdir()} == {p.name for p in alone.folder.iterdir()}
    rows, expected = (read_history(r.folder / "history.jsonl") for r in (one, alone))
    assert [list(row) for row in rows] == [list(row) for row in expected]
    for row, wanted in zip(rows, expected, strict=True):
        missing = {key for key, value in wanted.items() if value is None}  # an accuracy without validation data
        assert {key for key, value in row.items() if value is None} == missing
        ours, theirs = ({k: v for k, v in r.items() if k not in missing} for r in (row, wanted))
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-6, nan_ok=True)  # a penalty is a difference, squared


def at_every_step(patch: pytest.MonkeyPatch, action: Callable[[int], None]) -> None:
    """Call action(steps done of the whole stream) within each step of a stack."""
    original = Fit._step

    def acting(self: Fit, *batch: Any) -> None:
        original(self, *batch)
        action(self.runs[0].record.step + self.step)

    patch.setattr(Fit, "_step", acting)


def terminate(at: int) -> Callable[[int], None]:
    return lambda done: signal.raise_signal(signal.SIGTERM) if done == at else None


def interrupted_stack(root: Path, step: int, *sweep: str) -> None:
    """A sweep that SIGTERM stops after this step of the whole stream."""
    with pytest.MonkeyPatch.context() as patch:
        at_every_step(patch, terminate(step))
        said = stacked(root, *sweep)
    assert said.code == 128 + signal.SIGTERM
    assert said.err.startswith("interrupted by SIGTERM; the same command continues")
    assert not list(root.glob("*/*/error.txt"))
