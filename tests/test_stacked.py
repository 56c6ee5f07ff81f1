"""Runs stacked along a leading dimension: each member is the run it would be alone."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
import torch

from lifelong.experiment.errors import composed
from lifelong.experiment.parts import make_stream
from lifelong.experiment.result import read_result
from lifelong.experiment.run import requested
from lifelong.methods.mas import MAS
from lifelong.methods.si import SI
from lifelong.runs.folder import RunFolder
from lifelong.runs.interrupted import Interrupted
from lifelong.stacked.plan import block_key, chunks, reason_alone, stack_key
from lifelong.stacked.stack import Fit
from lifelong.stacked.sweep import CACHED_BYTES, FEW, Job, Plan, default_size
from lifelong.tracking import DivergedError, read_history
from runs import TINY, Result, Said, assert_same_run, at_every_batch, command, composed_tiny, run, weights

pytestmark = pytest.mark.system
STACKED = ("-m", *TINY, "hydra/launcher=stacked", "hydra.launcher.n_jobs=1")
METHODS = ("finetune", "l2", "ewc", "online_ewc", "ewcpp", "mas", "si", "rwalk", "scp", "joint")


@pytest.fixture(scope="module", autouse=True)
def without_pictures() -> None:
    """Leave the pictures: stacked runs draw them in processes of their own."""


def stacked(root: Path, *settings: str) -> Said:
    return command(*STACKED, f"root={root}", *settings)


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


@pytest.fixture(scope="module")
def all_methods(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    root = tmp_path_factory.mktemp("stacked")
    return root, stacked(root, f"method={','.join(METHODS)}", "strength_factor=1,10", "seed=1")


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
        ("method=si", "keep_optimizer=epoch"),
        ("method=si", "keep_optimizer=true", "dataset=split", "~dataset.angles", "scenario=task", "val_fraction=0",
         "normalise=first_task", "dataset.pad=2"),
    ],
    ids=lambda settings: "-".join(settings[:4]),
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
    """When all have learned a task. The same sweep goes on after it."""
    original = Fit._step

    def stopped(self: Fit, *batch: Any) -> None:
        if self.index == 1 and self.step == 3:
            while isinstance(self.runs[0].method, SI):
                if len(list(tmp_path.glob("stack/*/*/last.ckpt"))) == 4:
                    ended()
                time.sleep(0.02)
            signal.pause()
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


# Who stacks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ((), None),
        (("method=joint", "scheduler=cosine", "optimizer.lr=0.1", "method.exclude=[head]"), None),
        (("method=lwf",), "method=lwf is not hosted"),
        (("method=joint", "method.schedule=once"), "method.schedule=once"),
        (("memory=uniform",), "memory=uniform"),
        (("backbone=cnn",), "backbone=cnn is not hosted"),
        (("backbone.dropout=0.1",), "backbone.dropout=0.1"),
        (("backbone.freeze=[head]",), "backbone.freeze"),
        (("augment=affine",), "augment=affine"),
        (("early_stopping=patience",), "early_stopping=patience"),
        (("trainer.devices=2",), "trainer.devices=2"),
        (("trainer.precision=bf16-mixed",), "trainer.precision=bf16-mixed"),
        (("trainer.accumulate_grad_batches=2",), "trainer.accumulate_grad_batches=2"),
        (("trainer.limit_train_batches=2",), "trainer.limit_train_batches is not hosted"),
        (("compile=true",), "compile"),
        (("keep_optimizer=true",), None),
        (("evaluate_every_n_steps=9",), "evaluate_every_n_steps"),
    ],
)
def test_what_does_not_stack_says_why(tmp_path: Path, settings: Sequence[str], reason: str | None) -> None:
    settings = [s for s in TINY if not (s.startswith("backbone.widths") and "backbone=cnn" in settings)] + [*settings]
    assert reason_alone(composed(settings)) == reason


def test_stack_shares_all_but_seed_method_and_optimiser(tmp_path: Path) -> None:
    def key(*settings: str) -> str:
        return stack_key(composed_tiny(tmp_path, *settings), 0)

    for same in (
        "seed=3",
        "method=mas",
        "method.labels=sampled",
        "optimizer.lr=1",
        "optimizer=sgd",
        "method.strength=0",
    ):
        assert key(same) == key()
    for other in (
        "method=joint",
        "batch_size=7",
        "backbone.widths=[8]",
        "dataset.angles=[0,10]",
        "trainer.max_epochs=1",
    ):
        assert key(other) != key()
    assert stack_key(composed_tiny(tmp_path), 1) != key()


def test_block_shares_method_and_optimiser_but_for_the_strength(tmp_path: Path) -> None:
    def key(*settings: str) -> str:
        return block_key(composed_tiny(tmp_path, *settings))

    assert key("method.strength=3") == key("seed=1") == key()
    for other in ("method=mas", "method.labels=sampled", "method.strength=0", "optimizer.lr=1", "method.step=proximal"):
        assert key(other) != key()


def test_chunks_are_nearly_equal_and_hold_every_job_once() -> None:
    keys = {number: "ab"[number % 2] for number in range(11)}
    parts = chunks(keys, 4)
    assert [len(part) for part in parts] == [3, 4, 4]
    assert sorted(number for part in parts for number in part) == list(range(11))
    assert [keys[number] for part in parts for number in part] == ["a"] * 6 + ["b"] * 5


@pytest.mark.parametrize("key", ["size", "n_jobs"])
def test_size_and_n_jobs_are_refused_unless_positive_integers(tmp_path: Path, key: str) -> None:
    said = stacked(tmp_path, "seed=0,1", f"hydra.launcher.{key}=0")
    assert (said.code, said.out) == (1, "")
    assert said.err == f"error: hydra.launcher.{key} must be an integer >= 1 or null, got 0\n"
    assert not any(tmp_path.iterdir())


def test_a_job_that_cannot_be_composed_is_refused_before_any_trains(tmp_path: Path) -> None:
    said = stacked(tmp_path, "method=ewc,nope")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("error: method must be one of agem, ")
    assert not list(tmp_path.glob("*/*/history.jsonl"))


def test_several_stacks_at_a_time_have_one_thread_each(tmp_path: Path) -> None:
    said = stacked(tmp_path, "seed=0,1", "hydra.launcher.n_jobs=2", "num_threads=2")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("error: hydra.launcher.n_jobs must be 1 or null but on a CPU with num_threads=1, got 2")


def test_stacks_are_split_among_the_jobs_at_a_time_and_none_of_them_into_one(tmp_path: Path) -> None:
    job = Job(requested(composed_tiny(tmp_path)), make_stream(composed_tiny(tmp_path)))
    plan = Plan({"a": dict.fromkeys(range(20), job), "b": dict.fromkeys(range(20, 30), job)})
    assert [len(stack) for stack in plan.stacks(None, 1)] == [20, 10]
    assert [len(stack) for stack in plan.stacks(None, 2)] == [10, 10, 10]
    assert [len(stack) for stack in plan.stacks(None, 64)] == [2, 3, 3, 3, 3, 3, 3, 2, 3, 2, 3]
    assert [len(stack) for stack in Plan({"a": dict.fromkeys(range(4), job)}).stacks(None, 2)] == [2, 2]
    assert [len(stack) for stack in plan.stacks(12, 64)] == [10, 10, 10]


def test_default_size_follows_cache_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = composed_tiny(tmp_path)
    job = Job(requested(config), make_stream(config))
    assert default_size(job) == CACHED_BYTES // (4 * (64 * 16 + 16 + 16 * 10 + 10))
    monkeypatch.setattr("lifelong.stacked.sweep.CACHED_BYTES", 1)
    assert default_size(job) == FEW
    monkeypatch.setattr("lifelong.stacked.sweep.os.sysconf", lambda key: 1)
    assert default_size(job) == 1
