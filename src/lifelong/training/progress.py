"""One progress bar for the whole stream, and the table that ends a run."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from lifelong.data.stream import TaskStream
from lifelong.runs.record import Record
from lifelong.tracking import Tracker

COLUMNS = (
    TextColumn("[bold]{task.fields[where]}"),
    BarColumn(bar_width=24),
    TextColumn("{task.fields[measures]}"),
    TimeElapsedColumn(),
    TextColumn("ETA"),
    TimeRemainingColumn(),
)
SHOWN = {"loss": "train/loss", "penalty": "train/penalty"}


class StreamProgress(Callback):
    """task 2/5 20° · epoch 3/10, loss, penalty, elapsed, ETA. Redrawn ten times a second, by rich's own thread."""

    def __init__(self, stream: TaskStream, record: Record, tracker: Tracker, console: Console) -> None:
        self.stream, self.record, self.tracker, self.console = stream, record, tracker, console
        self._progress: Progress | None = None

    def close(self) -> None:
        """Leave the terminal clean."""
        if self._progress is not None:
            self._progress.stop()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._progress is None and self.console.is_terminal and trainer.is_global_zero:
            self._progress = Progress(*COLUMNS, console=self.console, transient=True)
            self._bar = self._progress.add_task("", total=self.stream.num_tasks, where="", measures="loss –")
            self._progress.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._progress is None:
            return
        k, epoch, latest = self.record.task, trainer.current_epoch + 1, self.tracker.latest
        if trainer.max_steps > 0:
            done, of = trainer.global_step / trainer.max_steps, ""
        else:
            epochs = trainer.max_epochs or 1
            done, of = (epoch - 1 + (batch_idx + 1) / trainer.num_training_batches) / epochs, f"/{epochs}"
        self._progress.update(
            self._bar,
            completed=k + min(done, 1.0),
            where=f"task {k + 1}/{self.stream.num_tasks} {self.stream.names[k]} · epoch {epoch}{of}",
            measures="  ".join(f"{name} {latest[key]:.3g}" for name, key in SHOWN.items() if key in latest) or "loss –",
        )


def row_line(record: Record, names: Sequence[str]) -> str:
    """One line after a task: its test accuracies in percent."""
    k = record.task - 1
    cells = "  ".join(f"{name} {100 * value:.1f}" for name, value in zip(names, record.test[k][: k + 1], strict=False))
    return f"task {k + 1}/{len(names)} {names[k]} learned · test accuracy %: {cells}"


def result_tables(names: Sequence[str], rows: Sequence[Sequence[float]], measures: Mapping[str, Any]) -> list[Table]:
    """The accuracy matrix and the measures, for the terminal."""
    matrix = Table(title="test accuracy, %", caption="row: after learning · column: tested on", title_justify="left")
    for heading in ("", *names):
        matrix.add_column(heading, justify="right")
    for i, row in enumerate(rows):
        texts = ["–" if math.isnan(v) else f"{100 * v:.1f}" for v in row]
        cells = [f"[bold]{text}[/]" if i == j else text for j, text in enumerate(texts)]
        matrix.add_row(names[i], *cells)
    table = Table(title="measures, in points of 100", title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    for name, value in measures.items():
        table.add_row(name.replace("_", " "), "undefined" if math.isnan(value) else f"{100 * value:.2f}")
    return [matrix, table]
