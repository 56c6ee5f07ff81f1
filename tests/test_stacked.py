"""Runs stacked along a leading dimension: each member is the run it would be alone."""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lifelong.experiment.result import read_result
from lifelong.methods.mas import MAS
from lifelong.runs.folder import RunFolder
from lifelong.runs.interrupted import Interrupted
from lifelong.stacked.stack import Fit
from lifelong.tracking import DivergedError, read_history
from runs import TINY, Result, Said, assert_same_run, at_every_batch, command, last_line, run, stacked, weights

pytestmark = pytest.mark.system
CNN = ("backbone=cnn", "~backbone.widths", "backbone.channels=[4,8]", "backbone.hidden=16")
METHODS = ("finetune", "l2", "ewc", "online_ewc", "ewcpp", "mas", "si", "rwalk", "scp", "joint")


@pytest.fixture(scope="module", autouse=True)
def without_pictures() -> None:
    """Leave the pictures: stacked runs draw them in processes of their own."""


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


@pytest.fixture(scope="module")
def all_methods(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    root = tmp_path_factory.mktemp("stacked")
    return root, stacked(root, f"method={','.join(METHODS)}", "strength_factor=1,10", "seed=1")


@pytest.fixture(scope="module")
def all_methods_of_cnns(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    root = tmp_path_factory.mktemp("stacked")
    return root, stacked(root, *CNN, f"method={','.join(METHODS)}", "strength_factor=10", "seed=1")


@pytest.mark.smoke
def test_runs_of_all_methods_train_together_and_joint_apart(all_methods: tuple[Path, Said]) -> None:
    said = all_methods[1]
    assert said.code == 0, said.err
    assert last_line(said) == "20 jobs: 18 trained, 2 finished before, 0 failed"  # two have no strength
    assert "train together, 17 runs" in said.out
    assert "run alone (no other run stacks with it): job" in said.out


@pytest.mark.parametrize("method", [m for m in METHODS if m != "joint"])
def test_member_equals_its_run_alone(all_methods: tuple[Path, Said], tmp_path: Path, method: str) -> None:
    alone = run(tmp_path, f"method={method}", "strength_factor=10", "seed=1")
    assert_equal_runs(member(all_methods[0], alone), alone)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "joint"])
def test_convolutional_member_equals_its_run_alone(
    all_methods_of_cnns: tuple[Path, Said], tmp_path: Path, method: str
) -> None:
    assert "train together, 9 runs" in all_methods_of_cnns[1].out
    alone = run(tmp_path, *CNN, f"method={method}", "strength_factor=10", "seed=1")
    assert_equal_runs(member(all_methods_of_cnns[0], alone), alone)


@pytest.mark.parametrize(
    "settings",
    [
        ("method=joint",),
        ("method=si", "method.step=proximal", "optimizer=sgd", "scheduler=cosine", "trainer.gradient_clip_val=0.1"),
        ("method=ewcpp", "method.interval=2", "method.labels=exact", "trainer.gradient_clip_val=0.01",
         "trainer.gradient_clip_algorithm=value"),
        ("method=rwalk", "method.interval=2", "epochs_per_task=[1,3]", "backbone.bias=false"),
        ("method=rwalk", "method.interval=2", "method.labels=sampled", "method.exclude=[head]"),
        ("method=rwalk", "method.interval=2", "method.labels=batched", "method.window=interval", "method.half=false"),
        ("method=si", "method.gradient=total", "method.clamp=false", "method.reference=zero"),
        # With its own ε Adam makes a step of one learning rate of a gradient that is zero but for rounding.
        ("method=ewc", "dataset=split", "~dataset.angles", "scenario=class", "optimizer.eps=1e-3"),
        ("method=ewc", "dataset=split", "~dataset.angles", "scenario=class", "optimizer.eps=1e-3",
         "active_classes=all"),
        ("method=ewc", "drop_last=true", "shuffle=false", "dataset.pad=1", "backbone.init=truncated_normal"),
        ("method=si", "dataset.angles=random", "dataset.num_tasks=2", "dataset.interpolation=nearest",
         "backbone.init=xavier"),
        ("method=mas", "dataset=split", "~dataset.angles", "scenario=task", "trainer.max_epochs=-1",
         "trainer.max_steps=5"),
        ("method=si", "keep_optimizer=true", "optimizer=adamw", "optimizer.amsgrad=true", "scheduler=cosine"),
        ("method=mas", "keep_optimizer=true", "optimizer=sgd", "optimizer.momentum=0.9"),
        (*CNN, "method=joint"),
        (*CNN, "method=rwalk", "method.interval=2", "method.window=interval"),
        (*CNN, "method=ewcpp", "method.interval=2", "method.labels=batched", "trainer.gradient_clip_val=0.1"),
        (*CNN, "method=ewc", "dataset=split", "~dataset.angles", "scenario=task", "optimizer.eps=1e-3"),
        (*CNN, "method=si", "method.step=proximal", "optimizer=sgd", "scheduler=cosine"),
        ("method=si", "keep_optimizer=epoch"),
        ("method=si", "keep_optimizer=true", "dataset=split", "~dataset.angles", "scenario=task", "val_fraction=0",
         "normalise=first_task", "dataset.pad=2"),
    ],
    ids=lambda settings: "-".join([s for s in settings if s not in CNN[1:]][:4]),
)  # fmt: skip
def test_members_of_several_seeds_and_rates_equal_their_runs_alone(tmp_path: Path, settings: Sequence[str]) -> None:
    said = stacked(tmp_path / "stack", *settings, "seed=0,1", "optimizer.lr=0.01,0.003")
    assert last_line(said) == "4 jobs: 4 trained, 0 finished before, 0 failed", said.err
    alone = run(tmp_path / "alone", *settings, "seed=1", "optimizer.lr=0.003")
    assert "train together, 4 runs: jobs 0–3" in said.out
    assert_equal_runs(member(tmp_path / "stack", alone), alone)


@pytest.mark.parametrize("again", [stacked, lambda root, *settings: command("-m", *TINY, f"root={root}", *settings)])
def test_killed_stack_goes_on_after_its_last_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: Callable[..., Said]
) -> None:
    """Stacked, or by any other launcher, with the optimiser's state as it was."""
    sweep = ("method=si", "keep_optimizer=true", "seed=0,1")
    original = Fit._step

    def terminated(self: Fit, *batch: Any) -> None:
        if self.index == 1 and self.step == 3:
            signal.raise_signal(signal.SIGTERM)
        original(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(Fit, "_step", terminated)
        said = stacked(tmp_path / "stack", *sweep)
    assert said.code == 128 + signal.SIGTERM
    assert said.err.startswith("interrupted by SIGTERM; the same command continues")
    assert not list(tmp_path.glob("stack/*/*/error.txt"))
    assert last_line(again(tmp_path / "stack", *sweep)) == "2 jobs: 2 trained, 0 finished before, 0 failed"
    alone = run(tmp_path / "alone", *sweep[:-1], "seed=1")
    assert_equal_runs(member(tmp_path / "stack", alone), alone)
    steps = [row["step"] for row in read_history(member(tmp_path / "stack", alone).folder / "history.jsonl")]
    assert steps == sorted(steps), "rows that were written after the checkpoint are written once"


def test_run_interrupted_within_a_task_goes_on_alone(tmp_path: Path) -> None:
    """From the very step; the others train together."""
    with pytest.MonkeyPatch.context() as patch:
        at_every_batch(patch, lambda _, done: signal.raise_signal(signal.SIGTERM) if done == 8 else None)
        with pytest.raises(Interrupted):
            run(tmp_path / "stack", "method=si", "seed=1")
    said = stacked(tmp_path / "stack", "method=si", "seed=0,1,2")
    assert last_line(said) == "3 jobs: 3 trained, 0 finished before, 0 failed"
    assert "run alone (interrupted within a task): job 1" in said.out
    assert "train together, 2 runs: jobs 0, 2" in said.out
    alone = run(tmp_path / "alone", "method=si", "seed=1")
    assert_same_run(member(tmp_path / "stack", alone), alone)


def test_member_that_diverges_ends_alone_with_the_error_it_has_alone(tmp_path: Path) -> None:
    settings = ("method=finetune", "optimizer=sgd")
    said = stacked(tmp_path / "stack", *settings, "optimizer.lr=0.01,1e30")
    assert (said.code, last_line(said)) == (1, "2 jobs: 1 trained, 0 finished before, 1 failed")
    with pytest.raises(DivergedError):
        run(tmp_path / "alone", *settings, "optimizer.lr=1e30")
    (wanted,), (told,) = (list(tmp_path.glob(f"{where}/*/*/error.txt")) for where in ("alone", "stack"))
    assert told.parent.name == wanted.parent.name
    assert told.read_text() == wanted.read_text()
    assert not (told.parent / "metrics.json").exists()
    alone = run(tmp_path / "alone", *settings, "optimizer.lr=0.01")
    assert_equal_runs(member(tmp_path / "stack", alone), alone)
    assert last_line(stacked(tmp_path / "stack", *settings, "optimizer.lr=0.01")).endswith(
        "1 finished before, 0 failed"
    )


def test_members_whose_importance_is_refused_end_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = MAS.importance_of_task

    def broken(self: MAS, *given: Any) -> dict[str, torch.Tensor]:
        found = original(self, *given)
        return {n: F * torch.nan for n, F in found.items()} if self.strength == 7 else found

    monkeypatch.setattr(MAS, "importance_of_task", broken)
    said = stacked(tmp_path, "method=mas", "method.strength=1,7")
    assert last_line(said) == "2 jobs: 1 trained, 0 finished before, 1 failed"
    assert said.err.startswith("error: ")
    (told,) = tmp_path.glob("*/*/error.txt")
    assert told.read_text().startswith("PenaltyError: importance")
