"""What a person at a terminal sees of a run: one bar for the stream, one line a task, two tables at the end."""

import io
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from lifelong.runs.record import Record
from lifelong.training.progress import StreamProgress, result_tables, row_line


def bar(*, terminal: bool, task: int = 1) -> tuple[StreamProgress, Any]:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=140)
    stream: Any = SimpleNamespace(num_tasks=3, names=["a", "b", "c"])
    tracker: Any = SimpleNamespace(latest={"train/loss": 0.25, "train/penalty": 12.5})
    return StreamProgress(stream, Record(task=task), tracker, console), console.file


def step(progress: StreamProgress, *, epoch: int, batch: int, **limits: int) -> None:
    limits = {"max_epochs": 10, "max_steps": -1, "global_step": 0, **limits}
    trainer: Any = SimpleNamespace(is_global_zero=True, current_epoch=epoch, num_training_batches=4, **limits)
    module: Any = None
    progress.on_train_start(trainer, module)
    progress.on_train_batch_end(trainer, module, None, None, batch)


@pytest.mark.parametrize(
    ("epoch", "batch", "limits", "tasks_done"),
    [
        (2, 3, {}, 1.3),
        (7, 0, {"max_epochs": -1, "max_steps": 40, "global_step": 30}, 1.75),
    ],
)
def test_bar_says_task_epoch_loss_penalty_and_time_left(
    epoch: int, batch: int, limits: dict[str, int], tasks_done: float
) -> None:
    """A task counts by its epochs, or by its steps where they are the limit."""
    progress, screen = bar(terminal=True)
    with closing(progress):
        step(progress, epoch=epoch, batch=batch, **limits)
        assert progress._progress is not None
        progress._progress.refresh()
        assert progress._progress.tasks[0].percentage == pytest.approx(100 * tasks_done / 3)
    for words in ("task 2/3 b", f"epoch {epoch + 1}", "loss 0.25", "penalty 12.5", "ETA"):
        assert words in screen.getvalue()


def test_no_bar_is_drawn_into_a_file() -> None:
    progress, screen = bar(terminal=False)
    with closing(progress):
        step(progress, epoch=0, batch=0)
    assert screen.getvalue() == ""


def test_line_after_a_task_holds_the_accuracies_learned_so_far() -> None:
    record = Record(task=2, test=[[0.9, 0.1, 0.1], [0.8, 0.95, 0.1]])
    assert row_line(record, ["a", "b", "c"]) == "task 2/3 b learned · test accuracy %: a 80.0  b 95.0"


def test_tables_hold_every_cell_and_say_what_is_undefined() -> None:
    console = Console(file=io.StringIO(), width=100)
    for table in result_tables(["a", "b"], [[0.91, 0.22], [0.83, 0.94]], {"forgetting": 0.08, "x_y": float("nan")}):
        console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for words in ("91.0", "22.0", "83.0", "94.0", "forgetting", "8.00", "x y", "undefined"):
        assert words in text
