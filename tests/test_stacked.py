"""Runs stacked along a leading dimension: each member is the run it would be alone."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lifelong.methods.guards import PenaltyError
from lifelong.methods.mas import MAS
from lifelong.methods.method import Method as Finetune
from lifelong.tracking import DivergedError
from runs import Said, run
from stacks import CNN, assert_equal_runs, last_line, member, stacked, without_pictures  # noqa: F401 - a fixture

pytestmark = pytest.mark.system
METHODS = ("finetune", "l2", "ewc", "online_ewc", "ewcpp", "mas", "si", "rwalk", "scp", "joint")


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


@pytest.mark.parametrize(
    "more",
    [(), ("log_every_n_steps=50", "checkpoint_steps=1"), CNN],
    ids=["by its loss", "before a checkpoint", "cnn"],
)
def test_member_that_diverges_ends_alone_with_the_error_it_has_alone(tmp_path: Path, more: Sequence[str]) -> None:
    settings = ("method=finetune", "optimizer=sgd", *more)
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


def test_member_of_zero_importance_though_it_has_a_gradient_fails_as_it_does_alone(tmp_path: Path) -> None:
    """Its outputs have saturated: softmax is 0 or 1 to the bit."""
    settings = ("method=ewc", "optimizer=sgd", "optimizer.lr=3000")
    said = stacked(tmp_path / "stack", *settings, "seed=0,1")
    with pytest.raises(PenaltyError, match="have the outputs saturated"):
        run(tmp_path / "alone", *settings, "seed=0")
    (wanted,) = tmp_path.glob("alone/*/*/error.txt")
    told = tmp_path / "stack" / wanted.relative_to(tmp_path / "alone")
    assert "train together, 2 runs" in said.out
    assert told.read_text() == wanted.read_text()
    assert not (told.parent / "metrics.json").exists()


@pytest.mark.parametrize("rates", ["-1,1e-8", "1e-8,-1"])
def test_job_that_cannot_be_built_ends_no_other_wherever_it_stands(tmp_path: Path, rates: str) -> None:
    said = stacked(tmp_path, "method=finetune", f"optimizer.eps={rates}", "seed=0,1")
    assert "train together" in said.out
    assert last_line(said) == "4 jobs: 2 trained, 0 finished before, 2 failed"


def test_jobs_with_an_environment_of_their_own_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []
    original = Finetune.on_fit_start

    def looking(self: Finetune, *given: Any) -> None:
        seen.append(os.environ.get("OF_THE_JOB"))
        original(self, *given)

    monkeypatch.setattr(Finetune, "on_fit_start", looking)
    said = stacked(tmp_path, "method=finetune", "+hydra.job.env_set.OF_THE_JOB=yes", "seed=0,1")
    assert last_line(said) == "2 jobs: 2 trained, 0 finished before, 0 failed"
    assert set(seen) == {"yes"}
