"""Does anything grow with the number of tasks? Importance, state and memory along a long stream; the last step."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks import stream
from benchmarks.steps import BATCH_SIZE, Driver
from benchmarks.table import Cell, Settings, Spread, Table, in_turn, ratio, seconds
from lifelong.training.loop import Run

SHOWN = (2, 3, 10, 30, 100)
EARLY, LATE = 2, 100
NUM_STEPS = 20


def measure(settings: Settings, num_tasks: int = LATE, widths: tuple[int, ...] = (400, 400)) -> Table:
    num_train = max(2560 // settings.shrink, 3 * BATCH_SIZE)
    work = stream.Workload(num_tasks, num_train, 100, BATCH_SIZE, widths)
    importance = [0.0]
    rows: list[list[Cell]] = []

    def on_row(run: Run) -> None:
        importance.append(run.record.seconds["importance"])
        if run.record.task in SHOWN:
            P = sum(p.numel() for p in run.learner.backbone.parameters())
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            state, latest = run.method.state_bytes() / (4 * P), importance[-1] - importance[-2]
            rows.append([str(run.record.task), latest, state, pages * 4096 / 2**20])

    stream.learn_ours(work, stream.read_source(work, settings.fashion_mnist), on_row=on_row)
    late = early_and_late(settings, num_tasks, widths)
    return Table(
        f"EWC along {work}, one epoch a task, in one run: importance of all training images, state of the penalty, "
        "resident memory of the process (Linux).",
        {"task": "", "importance, s": ".3f", "state, P": ".2f", "process, MiB": ",.0f"},
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
