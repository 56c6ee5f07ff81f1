"""A run that was interrupted or killed ends as one that was not."""

import signal
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from grids import grid
from lifelong.experiment import run as experiment
from lifelong.experiment.run import Result
from lifelong.methods.penalty import Penalty
from lifelong.methods.rwalk import RWalk
from lifelong.methods.si import SI
from lifelong.runs import folder as run_folder
from lifelong.runs.checksum import load_with_checksum
from lifelong.runs.interrupted import Interrupted
from lifelong.tracking import Tracker
from lifelong.training import checkpoint, loop
from lifelong.training.checkpoint import Checkpoints
from lifelong.training.stopping import Patience
from runs import NUM_STEPS, Killed, assert_resumes, assert_same_run, at_every_batch, run, run_killed

EWC = ("method=ewc", "backbone.dropout=0.2")
ACCUMULATING = ("method=ewcpp", "method.interval=2", "augment=affine", "trainer.accumulate_grad_batches=2")
STOPPING = ("early_stopping=patience", "early_stopping.epochs=1", "trainer.max_epochs=6")
HALF = ("trainer.precision=bf16-mixed", "optimizer.fused=false", "trainer.gradient_clip_val=0.5")
BY_STEPS = ("method=ewc", "trainer.max_epochs=-1", "trainer.max_steps=7")  # an epoch has three
EXEMPLARS = ("memory=entropy", "memory.per_class=null", "memory.total=33")
EACH_STEP = "log_every_n_steps=1"
EVERY, SOME = tuple(range(1, NUM_STEPS + 1)), (2, 3, 6, 8, 11)
RESUMED: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
    "ewc": (EVERY, EWC),
    "rwalk": (EVERY, ("method=rwalk", "method.interval=4", "backbone.dropout=0.2")),
    "mixed precision": (SOME, ("method=si", *HALF, "scheduler=one_cycle")),
    "accumulating": ((1, 2, 4, 5), ACCUMULATING),
    "cosine": (EVERY, ("method=si", "scheduler=cosine", "optimizer=sgd", "optimizer.momentum=0.9", EACH_STEP)),
    "one cycle": (SOME, ("method=ewc", "method.step=proximal", "scheduler=one_cycle", EACH_STEP)),
    "stopping": (EVERY, ("method=rwalk", "method.interval=4", *STOPPING)),
    "stopping, cosine": ((1, 2, 3, 4), (*STOPPING, "scheduler=cosine", "trainer.accumulate_grad_batches=2")),
    "an optimiser that is kept": ((2, 3, 6, 7, 9, 12), ("method=si", "keep_optimizer=true")),
    "within tasks": (EVERY, (*EWC, "evaluate_every_n_steps=2", "evaluate_samples=20")),
    "an optimiser made anew each epoch": (EVERY, ("method=si", "keep_optimizer=epoch", "scheduler=cosine")),
    "in order, without the last batch": ((1, 2, 4, 7), ("method=si", "shuffle=false", "drop_last=true")),
    "steps instead of epochs": ((2, 3, 6, 7, 8, 10, 13), BY_STEPS),
    "steps of several epochs": ((3, 4, 6, 9, 13), (*BY_STEPS[:2], "trainer.max_steps=11", "keep_optimizer=epoch")),
    "epochs cut short": ((1, 2, 3, 6), (*EWC, "trainer.limit_train_batches=2", "trainer.max_epochs=4")),
    "a task that ends amid an epoch": ((3, 4, 5, 8), (*EWC, "trainer.max_steps=4")),
    "all tasks at once": ((1, 5, 8, 10), ("method=joint", "method.schedule=once")),
    "F of an interval": (EVERY, ("method=ewcpp", "method.interval=4", "method.window=interval")),
    "joined exemplars": ((7, 8, 11), EXEMPLARS),
    "balanced exemplars": ((7, 8, 11), (*EXEMPLARS, "memory.replay=balanced")),
    **{
        f"{method}, a reservoir": ((2, 8, 11), (f"method={method}", "memory=reservoir", "memory.total=40", *EWC[1:]))
        for method in ("finetune", "er", "der", "derpp", "agem", "gem")
    },
}
"""After which steps of a tiny run with such settings."""
AT_ONCE = (
    "steps of several epochs",
    "a task that ends amid an epoch",
    "epochs cut short",
    "mixed precision",
    "derpp, a reservoir",
)
"""Among the tests of `make test`."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """An uninterrupted run."""
    return run(tmp_path_factory.mktemp("whole"), *EWC)


def terminate(*_: Any, **__: Any) -> Any:
    signal.raise_signal(signal.SIGTERM)


def kill(*_: Any, **__: Any) -> Any:
    raise Killed


def last_checkpoint(root: Path) -> dict[str, Any]:
    return load_with_checksum(next(root.rglob("last.ckpt")))


# Interrupted --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", grid(RESUMED, AT_ONCE))
def test_interrupted_again_and_again_equals_uninterrupted(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, settings = RESUMED[kind]
    assert_resumes(monkeypatch, tmp_path, steps, *settings)


@pytest.fixture(scope="module")
def accumulated(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run(tmp_path_factory.mktemp("accumulated"), *ACCUMULATING)


@pytest.mark.parametrize("batch", grid([1, 2, 3, 4, 7, 12], [1, 4, 7]))
def test_interrupted_between_accumulated_batches_is_saved_after_their_step(
    batch: int, accumulated: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint holds no gradients: in the midst of a step it would lose those of the step's first batches."""
    seen = count(1)
    with monkeypatch.context() as patch:
        at_every_batch(patch, lambda *_: terminate() if next(seen) == batch else None)
        with pytest.raises(Interrupted):
            run(tmp_path, *ACCUMULATING)
    assert_same_run(run(tmp_path, *ACCUMULATING), accumulated)


def test_restored_penalty_moves_to_the_device_even_if_no_step_is_left() -> None:
    penalty = SI(1.0)
    penalty.load_state_dict({name: {"w": torch.zeros(2)} for name in SI.state})
    penalty.on_fit_start(None, SimpleNamespace(device=torch.device("meta")))  # type: ignore[arg-type]
    assert all(getattr(penalty, name)["w"].is_meta for name in SI.state)


@pytest.mark.parametrize(
    ("epoch", "signum"), grid(enumerate([signal.SIGINT, signal.SIGTERM] * 2), [(0, signal.SIGINT), (3, signal.SIGTERM)])
)
def test_signal_during_the_validation_of_an_epoch_is_saved_at_its_end(
    epoch: int, signum: int, whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, seen = Tracker.on_train_epoch_end, count()

    def signalled(self: Tracker, *args: Any) -> None:
        if next(seen) == epoch:
            signal.raise_signal(signum)
        original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Tracker, "on_train_epoch_end", signalled)
        with pytest.raises(Interrupted) as interrupted:
            run(tmp_path, *EWC)
    assert interrupted.value.signum == signum
    assert last_checkpoint(tmp_path)["global_step"] == 3 * (epoch % 2 + 1)
    assert_same_run(run(tmp_path, *EWC), whole)


def test_interrupted_after_its_decision_to_stop_a_task_is_not_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, stopped = Patience.on_train_epoch_end, []

    def then_terminate(self: Patience, trainer: Any, *rest: Any) -> None:
        original(self, trainer, *rest)
        if trainer.should_stop and not stopped:
            stopped.append(trainer.current_epoch)
            terminate()

    with monkeypatch.context() as patch:
        patch.setattr(Patience, "on_train_epoch_end", then_terminate)
        with pytest.raises(Interrupted):
            run(tmp_path, *RESUMED["stopping"][1])
    assert stopped[0] + 1 < 6
    assert_same_run(run(tmp_path, *RESUMED["stopping"][1]), run(tmp_path / "whole", *RESUMED["stopping"][1]))


def test_resumed_task_is_not_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """before_task resets what a method keeps along the path: called again, it would forget the task's first part."""
    started: list[Any] = []
    original = RWalk.before_task

    def counted(self: RWalk, weights: Any) -> None:
        started.append(weights)
        original(self, weights)

    monkeypatch.setattr(RWalk, "before_task", counted)
    assert_resumes(monkeypatch, tmp_path, (2, 3, 8), *RESUMED["rwalk"][1])
    assert len(started) == 2 + 2  # of the uninterrupted run too


BETWEEN_FITS = [
    (Penalty, "after_task"),
    (loop, "accuracy_row"),
    (Checkpoints, "save_boundary"),
    (checkpoint.torch, "save"),
    (experiment, "write_result"),
    (run_folder.RunFolder, "write_metrics"),
]


STOPS = [(*place, *end) for place in BETWEEN_FITS for end in ((terminate, Interrupted), (kill, Killed))]


@pytest.mark.parametrize(("owner", "name", "stop", "error"), grid(STOPS, [*STOPS[:6:3], *STOPS[7::3]]))
def test_stopped_outside_a_fit_goes_on_from_the_last_checkpoint(
    owner: Any, name: str, stop: Any, error: Any, whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal there does not wait."""
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stop)
        with pytest.raises(error):
            run(tmp_path, *EWC, "checkpoint_seconds=1e-9")
    assert_same_run(run(tmp_path, *EWC, "checkpoint_seconds=1e-9"), whole)


def test_run_that_lacks_its_results_alone_leaves_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the last task's columns, though no task is learned after the resume. It says that it continues."""
    settings = ("method=finetune", "scenario=task")
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "write_result", kill)
        with pytest.raises(Killed):
            run(tmp_path / "killed", *settings)
    models = (run(tmp_path / where, *settings).folder / "model.pt" for where in ("killed", "whole"))
    resumed, whole = (torch.load(path, weights_only=True) for path in models)
    assert "continues, 2 of 2 tasks learned" in capsys.readouterr().out
    assert resumed["visible"] == whole["visible"] == list(range(10, 20))


def test_handlers_are_as_before_a_run(tmp_path: Path) -> None:
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    run(tmp_path)
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


# Killed -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", grid([1, 2, 3, 4, 6, 7, 12], [1, 6, 7]))
def test_killed_at_any_step_goes_on_from_the_last_periodic_checkpoint(
    step: int, whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (*EWC, "checkpoint_seconds=1e-9")
    run_killed(tmp_path, *settings, step=step)
    resumed_at: list[int] = []
    at_every_batch(monkeypatch, lambda _, done: resumed_at.append(done))
    assert_same_run(run(tmp_path, *settings), whole)
    assert resumed_at == list(range(step, NUM_STEPS + 1))


@pytest.mark.parametrize(("every", "saved"), [(1, [*range(1, 13)]), (2, [2, 4, 6, 8, 10, 12]), (4, [4, 10]), (99, [])])
def test_saved_every_n_optimiser_steps_of_a_task(
    every: int, saved: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted from the last checkpoint: a task's end is one too. The stream ends at 12, each task has 6."""
    seen: list[int] = []
    original = Checkpoints._save_in_work

    def noted(self: Checkpoints, trainer: Any) -> None:
        seen.append(self.record.step + trainer.global_step)
        original(self, trainer)

    monkeypatch.setattr(Checkpoints, "_save_in_work", noted)
    run(tmp_path, f"checkpoint_steps={every}")
    assert seen == saved


def test_checkpoint_holds_the_seconds_of_the_task_in_work(tmp_path: Path) -> None:
    run_killed(tmp_path, *EWC, "checkpoint_steps=1", step=9)
    seconds = last_checkpoint(tmp_path)["record"]["seconds"]
    assert all(seconds[phase] > 0 for phase in ("train", "importance", "evaluation"))
