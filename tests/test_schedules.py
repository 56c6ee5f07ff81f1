"""Learning rates and early stopping: each task's own, exact when a run is interrupted."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR
from torch.testing import assert_close

import tiny
from lifelong.experiment.run import Result
from lifelong.tracking import read_history
from lifelong.training import schedules as schedulers
from probe import Probe
from runs import run

LR = 0.01
EACH_STEP = ("log_every_n_steps=1",)
STOPPING = ("early_stopping=patience", "early_stopping.epochs=1", "trainer.max_epochs=6")


def rates(done: Result) -> list[list[float]]:
    """Of each task, step by step."""
    rows = [row for row in read_history(done.folder / "history.jsonl") if "train/loss" in row]
    return [[row["train/learning_rate"] for row in rows if row["task"] == k] for k in range(2)]


def half_wave(num_steps: int) -> list[float]:
    return [LR * (1 + math.cos(math.pi * t / num_steps)) / 2 for t in range(num_steps)]


# Schedules ----------------------------------------------------------------------------------------------------------

LENGTHS = {
    "epochs": ((), [6, 6]),
    "accumulated, the epoch's last step of one batch": (("trainer.accumulate_grad_batches=2",), [4, 4]),
    "epochs of each task": (("epochs_per_task=[1,3]",), [3, 9]),
    "steps": (("trainer.max_steps=4",), [4, 4]),
    "more steps than epochs have": (("trainer.max_steps=40",), [6, 6]),
    "fewer batches": (("+trainer.limit_train_batches=2",), [4, 4]),
    "a share of the batches": (("+trainer.limit_train_batches=0.7",), [4, 4]),
}


@pytest.mark.parametrize("length", LENGTHS)
def test_cosine_falls_to_zero_over_the_steps_of_each_task(length: str, tmp_path: Path) -> None:
    """The rate of a row is the one its step was made with."""
    settings, steps = LENGTHS[length]
    done = run(tmp_path, "scheduler=cosine", *settings, *EACH_STEP)
    assert [len(task) for task in rates(done)] == steps
    for task in rates(done):
        assert task == pytest.approx(half_wave(len(task)), rel=1e-9, abs=1e-15)  # torch's form is recursive


@pytest.mark.parametrize("num_steps", [5, 10, 40])
def test_one_cycle_is_torchs(num_steps: int) -> None:
    ours, theirs = (SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1) for _ in range(2))
    schedules = [
        schedulers.one_cycle(ours, num_steps, 0.37, 10, 100),
        OneCycleLR(theirs, 0.1, num_steps, pct_start=0.37, div_factor=10, final_div_factor=100, cycle_momentum=False),
    ]
    for _ in range(num_steps):
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-12)
        for optimizer, schedule in zip((ours, theirs), schedules, strict=True):
            optimizer.step()
            schedule.step()


@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 10])
@pytest.mark.parametrize("pct_start", [0.1, 0.25, 0.5, 0.99])
def test_one_cycle_fits_into_any_number_of_steps_and_leaves_momentum_as_it_is(num_steps: int, pct_start: float) -> None:
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.7)
    schedule = schedulers.one_cycle(optimizer, num_steps, pct_start)
    for _ in range(num_steps):
        assert 0 < optimizer.param_groups[0]["lr"] <= 0.1
        assert optimizer.param_groups[0]["momentum"] == 0.7
        optimizer.step()
        schedule.step()


def test_without_a_scheduler_the_rate_stays(tmp_path: Path) -> None:
    assert rates(run(tmp_path, *EACH_STEP)) == [[LR] * 6] * 2


def test_proximal_step_pulls_by_the_rate_of_its_own_step() -> None:
    """θ' = (θ − lr_t g + aθ*)/(1 + a), a = lr_t · 2 · strength · Ω, lr_t on its half wave."""
    penalty, stream, probe = tiny.make_penalty("l2", strength=3.0, step="proximal"), tiny.split(), Probe()
    learner = tiny.make_learner(stream, make_optimizer=partial(SGD, lr=LR))
    learner.make_scheduler, learner.num_steps = schedulers.cosine, 4
    tiny.fit(learner, penalty, stream.task(0).train, penalty, precision="64-true")
    tiny.keep(learner, penalty, stream.task(0).train)
    tiny.fit(learner, penalty, stream.task(1).train, *probe.around(penalty), precision="64-true")
    for t, lr in enumerate(half_wave(4)):
        for n, theta in probe.weights[t].items():
            a = lr * 2 * 3.0
            expected = (theta - lr * probe.task[t][n] + a * penalty.anchor[n]) / (1 + a)
            assert_close(probe.weights[t + 1][n], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scheduler", ["none", "cosine", "one_cycle"])
def test_stability_is_judged_by_the_highest_rate_of_the_schedule(scheduler: str, tmp_path: Path) -> None:
    """Also after an interruption, when the rate of the moment is another."""
    done = run(tmp_path, "method=l2", "method.strength=50", f"scheduler={scheduler}")
    rows = [row for row in read_history(done.folder / "history.jsonl") if "train/loss" in row and row["task"] == 1]
    assert [row["train/lr_curvature"] for row in rows] == pytest.approx([LR * 2 * 50] * len(rows))


# Early stopping -----------------------------------------------------------------------------------------------------


def accuracies(done: Result, task: int) -> list[float]:
    """Validation accuracy of the task in work, epoch by epoch."""
    name = f"val/accuracy/{done.names[task]}"
    rows = [row for row in read_history(done.folder / "history.jsonl") if "epoch" in row and name in row]
    return [row[name] for row in rows if row["task"] == task]


def epochs_until_stopped(accuracies: list[float], patience: int, min_delta: float) -> int:
    best, waited = -math.inf, 0
    for epoch, accuracy in enumerate(accuracies, start=1):
        best, waited = (accuracy, 0) if accuracy - min_delta > best else (best, waited + 1)
        if waited == patience:
            return epoch
    return len(accuracies)


@pytest.mark.parametrize(("patience", "min_delta"), [(1, 0.0), (2, 0.1), (1, 0.1)])
def test_first_task_stops_when_the_whole_run_says_it_has_not_risen(
    patience: int, min_delta: float, tmp_path: Path
) -> None:
    """Up to its end it is the first task of a run that is not stopped."""
    longer = ("trainer.max_epochs=12", "val_fraction=0.3")
    options = (f"early_stopping.epochs={patience}", f"early_stopping.min_delta={min_delta}")
    whole = accuracies(run(tmp_path, *longer), 0)
    stopped = run(tmp_path, *longer, "early_stopping=patience", *options)
    expected = epochs_until_stopped(whole, patience, min_delta)
    assert 1 < expected < 12
    assert accuracies(stopped, 0) == whole[:expected]


def test_steps_run_on_through_tasks_of_different_length(tmp_path: Path) -> None:
    done = run(tmp_path, *STOPPING, *EACH_STEP)
    epochs = [len(accuracies(done, task)) for task in range(2)]
    assert min(epochs) < 6
    assert epochs[0] != epochs[1]
    rows = read_history(done.folder / "history.jsonl")
    assert [row["step"] for row in rows if "train/loss" in row] == list(range(1, 3 * sum(epochs) + 1))
    assert [row["step"] for row in rows if "test/average_accuracy" in row] == [3 * epochs[0], 3 * sum(epochs)]
    assert done.metrics["num_steps"] == 3 * sum(epochs)
