"""Accuracy within tasks: watched on fixed subsets, and nothing else changes."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import tiny
from lifelong.methods.method import Method
from lifelong.tracking import Subsets, evaluations, read_history
from reference import continual_evaluation
from runs import composed_tiny, run, run_killed, weights
from tiny import METHODS, make_penalty, permuted
from wandb_session import history

EVERY, ALL = "evaluate_every_n_steps=3", "evaluate_samples=2000"
NAMES = ["rot0", "rot30"]
ENTERING = [m for m in METHODS if type(make_penalty(m)).enter is not Method.enter]
"""Methods that change the learner for an evaluation and back."""


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=() if m in ("ewc", *ENTERING) else pytest.mark.system) for m in METHODS]
)
def test_weights_are_bitwise_those_of_a_run_that_is_not_evaluated_within_tasks(method: str, tmp_path: Path) -> None:
    settings = (*tiny.overrides(method), "backbone.dropout=0.2")
    watched = run(tmp_path / "watched", *settings, "evaluate_every_n_steps=1")
    alone = run(tmp_path / "alone", *settings)
    assert watched.folder.name == alone.folder.name
    assert_close(weights(watched), weights(alone), rtol=0, atol=0)
    assert torch.equal(watched.matrix, alone.matrix)
    seen = [row for row in history(watched) if not any(key.startswith("within/") for key in row)]
    assert seen == history(alone)


def test_whole_sets_give_the_accuracies_of_epochs_and_of_the_matrix(tmp_path: Path) -> None:
    """An epoch has three steps; a subset of all samples is the whole validation set, or test set without one."""
    result = run(tmp_path, EVERY, ALL)
    by_epoch = {row["step"]: row for row in history(result) if "val/accuracy/rot0" in row}
    R, tasks, steps = evaluations(history(result), NAMES)
    assert (tasks.tolist(), steps) == ([0, 0, 1, 1], [3, 6, 9, 12])
    for row, task, step in zip(R.tolist(), tasks.tolist(), steps, strict=True):
        assert row[: task + 1] == [by_epoch[step][f"val/accuracy/{name}"] for name in NAMES[: task + 1]]
    assert R[:2, 1].isnan().all()
    assert result.metrics["within_part"] == "val"
    untested = run(tmp_path, EVERY, ALL, "val_fraction=0")
    R, tasks, _ = evaluations(history(untested), NAMES)
    assert untested.metrics["within_part"] == "test"
    assert torch.equal(R[-1], untested.matrix[-1])
    assert R[tasks == 0][-1, 0] == untested.matrix[0, 0]


def test_rows_come_every_n_steps_of_a_task_and_at_its_end(tmp_path: Path) -> None:
    rows = [row for row in history(run(tmp_path, "evaluate_every_n_steps=4")) if "within/rot0" in row]
    assert [(row["task"], row["step"]) for row in rows] == [(0, 4), (0, 6), (1, 10), (1, 12)]


def test_rows_come_once_a_step_of_accumulated_batches(tmp_path: Path) -> None:
    accumulating = ("trainer.accumulate_grad_batches=2", "evaluate_every_n_steps=2")
    rows = [row for row in history(run(tmp_path, *accumulating)) if "within/rot0" in row]
    assert [row["step"] for row in rows] == [2, 4, 4, 6, 8, 8]  # an epoch's third batch is a step by itself


def test_metrics_are_the_measures_of_the_rows(tmp_path: Path) -> None:
    settings = ("method=finetune", "optimizer.lr=0.1", "evaluate_every_n_steps=1", "evaluate_samples=20")
    metrics = run(tmp_path, *settings).metrics
    (path,) = tmp_path.rglob("history.jsonl")
    R, tasks, _ = evaluations(read_history(path), NAMES)
    slow = continual_evaluation(R.tolist(), tasks.tolist())
    assert_close({name: metrics[name] for name in slow}, slow, rtol=0, atol=1e-14)  # sums of at most 14 terms
    assert slow["within_stability_gap"] != 0


def test_joint_training_at_once_has_no_gap(tmp_path: Path) -> None:
    """Later turns train nothing: each is one evaluation of the same network."""
    result = run(tmp_path, "method=joint", "method.schedule=once", EVERY, ALL)
    R, tasks, _ = evaluations(history(result), NAMES)
    assert tasks[-2:].tolist() == [0, 1]
    assert torch.equal(R[-1], R[-2])
    assert result.metrics["within_stability_gap_per_switch"] == [0.0]
    assert result.metrics["within_min_accuracy"] == R[-1, 0]


def test_subset_is_a_function_of_seed_and_base_task() -> None:
    stream, cpu = permuted(cycles=2, val_fraction=0.5), torch.device("cpu")
    one, again, other = (Subsets(stream, 1, 12, seed) for seed in (0, 0, 1))
    first, visit = stream.task(0), stream.task(3)
    assert torch.equal(one.of(first, cpu).inputs, again.of(visit, cpu).inputs)
    assert not torch.equal(one.of(first, cpu).inputs, other.of(first, cpu).inputs)
    every = Subsets(stream, 1, 1000, 0).of(first, cpu)
    assert len(one.of(first, cpu)) == 12
    assert sorted(every.labels.tolist()) == sorted(first.val.labels.tolist())
    whole = {tuple(image.flatten().tolist()) for image in first.val.inputs}
    assert {tuple(image.flatten().tolist()) for image in one.of(first, cpu).inputs} <= whole


@pytest.mark.usefixtures("pictures")
def test_picture_is_drawn_only_if_there_is_something_to_see(tmp_path: Path) -> None:
    assert (run(tmp_path / "a", EVERY).folder / "within_tasks.png").exists()
    alone = run(tmp_path / "b")
    assert not (alone.folder / "within_tasks.png").exists()
    assert not any(key.startswith("within") for key in alone.metrics)


def test_run_that_was_not_evaluated_from_the_start_has_no_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_killed(tmp_path)  # in the second task
    result = run(tmp_path, EVERY)
    assert "evaluate_every_n_steps was not set from the start" in capsys.readouterr().err
    assert "within_part" not in result.metrics
    assert not run(tmp_path, EVERY).trained
    assert "rerun=true trains it again with evaluate_every_n_steps" in capsys.readouterr().out
    assert "within_part" in run(tmp_path, EVERY, "rerun=true").metrics


def test_keys_are_no_part_of_the_run_id(tmp_path: Path) -> None:
    from lifelong.runs.identity import identifier

    one, other = (identifier(composed_tiny(tmp_path, *o)) for o in ((), (EVERY, ALL)))
    assert one == other
