"""A run that was interrupted or killed ends as one that was not."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lifelong.experiment import run as experiment
from lifelong.experiment.run import Result
from lifelong.methods.penalty import Penalty
from lifelong.methods.rwalk import RWalk
from lifelong.methods.si import SI
from lifelong.runs import folder as run_folder
from lifelong.runs.checksum import load_with_checksum
from lifelong.runs.interrupted import Interrupted
from lifelong.tracking import Tracker, read_history
from lifelong.training import checkpoint, loop
from lifelong.training.checkpoint import Checkpoints
from runs import NUM_STEPS, TINY, assert_resumes, assert_same_run, at_every_batch, run

SETTINGS = {
    "ewc": ("method=ewc", "backbone.dropout=0.2"),
    "si": ("method=si", "backbone.dropout=0.2"),
    "rwalk": ("method=rwalk", "method.interval=4", "backbone.dropout=0.2"),
    "mixed": (
        "method=si",
        "trainer.precision=bf16-mixed",
        "optimizer.fused=false",
        "trainer.gradient_clip_val=0.5",
        "scheduler=one_cycle",
    ),
    "accumulating": ("method=ewcpp", "method.interval=2", "augment=affine", "trainer.accumulate_grad_batches=2"),
}


class Killed(BaseException):
    """As kill -9: from here on nothing is saved."""


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lifelong.experiment.result.draw", lambda *_: None)  # half the time of a tiny run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """An uninterrupted run of each kind."""
    return {kind: run(tmp_path_factory.mktemp(kind), *settings) for kind, settings in SETTINGS.items()}


def stop(patch: pytest.MonkeyPatch, when: Callable[[Any, int], bool], how: Callable[[], None]) -> None:
    def act(checkpoints: Any, done: int) -> None:
        if when(checkpoints, done):
            how()

    at_every_batch(patch, act)


def terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


def kill(*_: Any, **__: Any) -> Any:
    raise Killed


def last_checkpoint(root: Path) -> Path:
    return next(root.rglob("last.ckpt"))


# Interrupted --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", range(1, NUM_STEPS + 1))
def test_interrupted_at_any_step_and_resumed_equals_uninterrupted(
    step: int, whole: dict[str, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop(patch, lambda _, done: done == step, terminate)
        with pytest.raises(Interrupted) as interrupted:
            run(tmp_path, *SETTINGS["ewc"])
    assert interrupted.value.signum == signal.SIGTERM
    assert_same_run(run(tmp_path, *SETTINGS["ewc"]), whole["ewc"])


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 7, 12])
def test_interrupted_between_accumulated_batches_is_saved_behind_their_step(
    batch: int, whole: dict[str, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint holds no gradients: in the midst of a step it would lose those of the step's first batches."""
    seen = 0

    def is_the_one(*_: Any) -> bool:
        nonlocal seen
        seen += 1
        return seen == batch

    with monkeypatch.context() as patch:
        stop(patch, is_the_one, terminate)
        with pytest.raises(Interrupted):
            run(tmp_path, *SETTINGS["accumulating"])
    assert_same_run(run(tmp_path, *SETTINGS["accumulating"]), whole["accumulating"])


def test_task_that_ends_amid_an_epoch_is_resumed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_resumes(monkeypatch, tmp_path, (3, 4, 5, 8), *SETTINGS["ewc"], "trainer.max_steps=4")


def test_restored_penalty_moves_to_the_device_even_if_no_step_is_left() -> None:
    penalty = SI(1.0)
    penalty.load_state_dict({name: {"w": torch.zeros(2)} for name in SI.state})
    penalty.on_fit_start(None, SimpleNamespace(device=torch.device("meta")))  # type: ignore[arg-type]
    assert all(getattr(penalty, name)["w"].is_meta for name in SI.state)


@pytest.mark.parametrize(("epoch", "signum"), list(enumerate([signal.SIGINT, signal.SIGTERM] * 2)))
def test_signal_during_the_validation_of_an_epoch_is_saved_at_its_end(
    epoch: int, signum: int, whole: dict[str, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, seen = Tracker.on_train_epoch_end, []

    def signalled(self: Tracker, *args: Any) -> None:
        if len(seen) == epoch:
            signal.raise_signal(signum)
        seen.append(epoch)
        original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Tracker, "on_train_epoch_end", signalled)
        with pytest.raises(Interrupted) as interrupted:
            run(tmp_path, *SETTINGS["ewc"])
    assert interrupted.value.signum == signum
    assert load_with_checksum(last_checkpoint(tmp_path))["global_step"] == 3 * (epoch % 2 + 1)
    assert_same_run(run(tmp_path, *SETTINGS["ewc"]), whole["ewc"])


def test_interrupted_again_and_again_equals_uninterrupted_and_starts_each_task_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """before_task resets what a method keeps along the path: called again, it would forget the task's first part."""
    started: list[Any] = []
    original = RWalk.before_task

    def counted(self: RWalk, weights: Any) -> None:
        started.append(weights)
        original(self, weights)

    monkeypatch.setattr(RWalk, "before_task", counted)
    assert_resumes(monkeypatch, tmp_path, range(1, NUM_STEPS + 1), *SETTINGS["rwalk"])
    assert len(started) == 2 + 2  # of the uninterrupted run too


def test_second_signal_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one waits for the end of the batch, the second does not: nothing more is saved."""

    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    stop(monkeypatch, lambda _, done: done == 2, twice)
    with pytest.raises(Interrupted, match="interrupted by SIGINT; the same command starts over"):
        run(tmp_path)
    assert not list(tmp_path.rglob("last.ckpt"))


@pytest.mark.parametrize(
    ("owner", "name"),
    [(Penalty, "after_task"), (loop, "accuracy_row"), (Checkpoints, "save_boundary"), (experiment, "write_result")],
)
def test_signal_outside_a_fit_ends_at_once_and_the_last_checkpoint_stands(
    owner: Any, name: str, whole: dict[str, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, lambda *_, **__: terminate())
        with pytest.raises(Interrupted):
            run(tmp_path, *SETTINGS["ewc"], "checkpoint_seconds=1e-9")
    assert_same_run(run(tmp_path, *SETTINGS["ewc"], "checkpoint_seconds=1e-9"), whole["ewc"])


def test_handlers_are_as_before_a_run(tmp_path: Path) -> None:
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    run(tmp_path)
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


# Killed -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 2, 3, 4, 6, 7, 12])
def test_killed_at_any_step_goes_on_from_the_last_periodic_checkpoint(
    step: int, whole: dict[str, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (*SETTINGS["si"], "checkpoint_seconds=1e-9")
    with monkeypatch.context() as patch:
        stop(patch, lambda _, done: done == step, kill)
        with pytest.raises(Killed):
            run(tmp_path, *settings)
    resumed_at: list[int] = []
    with monkeypatch.context() as patch:
        at_every_batch(patch, lambda _, done: resumed_at.append(done))
        assert_same_run(run(tmp_path, *settings), whole["si"])
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


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (SI, "after_task"),
        (loop, "accuracy_row"),
        (Checkpoints, "save_boundary"),
        (checkpoint.torch, "save"),
        (experiment, "write_result"),
        (run_folder.RunFolder, "write_metrics"),
    ],
)
def test_killed_between_fits_equals_uninterrupted(
    owner: Any, name: str, whole: dict[str, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, kill)
        with pytest.raises(Killed):
            run(tmp_path, *SETTINGS["si"])
    assert_same_run(run(tmp_path, *SETTINGS["si"]), whole["si"])


# Real processes -----------------------------------------------------------------------------------------------------

PROGRAM = """
import os, signal, sys
sys.path[:0] = {path!r}
import pytest, runs
from lifelong.config.schema import register
from lifelong.experiment.errors import one_line_errors
def act(checkpoints, done):
    if done == 8:
        os.kill(os.getpid(), signal.{name})
runs.at_every_batch(pytest.MonkeyPatch(), act)
sys.argv = ["train.py", *{arguments!r}]
register()
with one_line_errors():
    runs.script.main()
"""


@pytest.mark.system
@pytest.mark.smoke
def test_process_that_got_a_signal_says_one_line_and_the_same_command_continues(
    whole: dict[str, Result], tmp_path: Path
) -> None:
    processes = {}
    for name in ("SIGTERM", "SIGINT", "SIGKILL"):
        arguments = [*TINY, *SETTINGS["ewc"], f"root={tmp_path / name}", "checkpoint_seconds=1e-9"]
        program = PROGRAM.format(path=[p for p in sys.path if p], name=name, arguments=arguments)
        processes[name] = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    for name, process in processes.items():
        out, err = process.communicate(timeout=120)
        folder = last_checkpoint(tmp_path / name).parent
        assert out == ""
        if name == "SIGKILL":
            assert (process.returncode, err) == (-signal.SIGKILL, "")
        else:
            assert process.returncode == 128 + signal.Signals[name]
            assert err == f"interrupted by {name}; the same command continues: {folder}\n"
        resumed = run(tmp_path / name, *SETTINGS["ewc"], "checkpoint_seconds=1e-9")
        assert resumed.folder == folder
        assert_same_run(resumed, whole["ewc"])
        steps = [row["step"] for row in read_history(folder / "history.jsonl") if "train/loss" in row]
        assert steps == [2, 4, 6, 8, 10, 12]


def test_checkpoint_holds_the_seconds_of_the_task_in_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop(patch, lambda _, done: done == 8, terminate)
        with pytest.raises(Interrupted):
            run(tmp_path, *SETTINGS["ewc"])
    seconds = load_with_checksum(last_checkpoint(tmp_path))["record"]["seconds"]
    assert all(seconds[phase] > 0 for phase in ("train", "importance", "evaluation"))
