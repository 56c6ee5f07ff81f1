"""Does anything grow with the number of tasks? Step time, importance, penalty state and memory along a long stream."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from benchmarks import stream
from benchmarks.steps import BATCH_SIZE, Driver
from benchmarks.table import Cell, Settings, Spread, Table, in_turn, ratio, seconds
from lifelong.training.loop import Run

SHOWN = (2, 3, 10, 30, 100)
EARLY, LATE = 2, 100
NUM_STEPS = 20


class StepTimes(Callback):
    """Median seconds of a training step of each task, batch to batch."""

    def __init__(self) -> None:
        self.medians: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.ends.append(perf_counter())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.medians.append(median(after - before for before, after in pairwise(self.ends)))


def measure(settings: Settings, num_tasks: int = LATE, widths: tuple[int, ...] = (400, 400)) -> Table:
    num_train = max(2560 // settings.shrink, 3 * BATCH_SIZE)
    work = stream.Workload(num_tasks, num_train, 100, BATCH_SIZE, widths)
    steps = StepTimes()
    importance = [0.0]
    rows: list[list[Cell]] = []

    def on_row(run: Run) -> None:
        task = run.record.task
        importance.append(run.record.seconds["importance"])
        if task in SHOWN:
            P = sum(p.numel() for p in run.learner.backbone.parameters())
            state, latest = run.method.state_bytes() / (4 * P), importance[-1] - importance[-2]
            rows.append([str(task), 1e6 * steps.medians[-1], latest, state, resident_bytes() / 2**20])

    stream.learn_ours(work, stream.read_source(work, settings.fashion_mnist), callbacks=[steps], on_row=on_row)
    late = early_and_late(settings, num_tasks, widths)
    return Table(
        f"EWC along {work}, one epoch a task, in one run: median step within the task, importance of all training "
        "images, state of the penalty, resident memory of the process.",
        {"task": "", "step, µs": ",.0f", "importance, s": ".3f", "state, P": ".2f", "process, MiB": ",.0f"},
        rows,
        f"The penalised step of task {num_tasks} takes {late:.3f} × that of task {EARLY}, both driven in turn "
        f"({NUM_STEPS} steps at a time, median, lowest–highest).",
    )


def early_and_late(settings: Settings, num_tasks: int, widths: Sequence[int]) -> Spread:
    """Step time in the last task over that in the second, repetition by repetition."""
    drivers = {k: Driver("ewc", widths, num_samples=256) for k in (EARLY, num_tasks)}
    for k, driver in drivers.items():
        driver.learn(k - 1, num_steps=2)
        driver.start()
    runs = {str(k): partial(seconds, partial(driver.steps, NUM_STEPS)) for k, driver in drivers.items()}
    times = in_turn(runs, settings.repetitions or 40)
    return ratio(times[str(num_tasks)], times[str(EARLY)])


def resident_bytes() -> int:
    """Memory of this process now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
