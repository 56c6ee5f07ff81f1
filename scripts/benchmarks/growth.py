"""Does anything grow with the number of tasks? Step time, importance, penalty state and memory along a long stream."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import stream
from benchmarks.steps import BATCH_SIZE, Driver
from benchmarks.table import Cell, Settings, Spread, Table, in_turn, middle, ratio, seconds
from lifelong.plots.figures import COLOURS, save_figure
from lifelong.training.loop import Run

SHOWN = (2, 3, 10, 30, 100)
EARLY, LATE = 2, 100
NUM_STEPS = 20
TERMS = (1, 2, 5, 10, 20, 50, 99)
"""Past tasks of the loss that has a term for each."""


@dataclass
class Growth(Callback):
    """What a stream costs, by task.

    Attributes:
        steps: median seconds of a training step, batch to batch.
        importance, evaluation: seconds after each task; evaluation is of all tasks.
        state, memory: bytes of the penalty and of the process's resident set.
    """

    steps: list[float] = field(default_factory=list)
    importance: list[float] = field(default_factory=list)
    state: list[int] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    _ends: list[float] = field(default_factory=list)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._ends = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._ends.append(perf_counter())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        taken = [after - before for before, after in zip(self._ends, self._ends[1:], strict=False)]
        self.steps.append(middle(taken))


def measure(settings: Settings, num_tasks: int = LATE, widths: tuple[int, ...] = (400, 400)) -> Table:
    num_train = max(2560 // settings.shrink, 3 * BATCH_SIZE)
    work = stream.Workload(num_tasks, num_train, 100, BATCH_SIZE, widths)
    growth = Growth()
    before: dict[str, float] = {}

    def on_row(run: Run) -> None:
        spent = run.record.seconds["importance"]
        growth.importance.append(spent - before.get("importance", 0.0))
        before["importance"] = spent
        growth.state.append(run.method.state_bytes())
        growth.memory.append(resident_bytes())

    stream.learn_ours(work, stream.read_source(work, settings.fashion_mnist), callbacks=[growth], on_row=on_row)
    late = early_and_late(settings, num_tasks, widths)
    P = growth.state[0] / 2
    rows: list[list[Cell]] = []
    for task in [k for k in SHOWN if k <= num_tasks]:
        i = task - 1
        rows.append(
            [str(task), 1e6 * growth.steps[i], growth.importance[i], growth.state[i] / P, growth.memory[i] / 2**20]
        )
    if settings.folder:
        settings.folder.mkdir(parents=True, exist_ok=True)
        published = {k: published_step(k, widths, num_steps=10) for k in TERMS}
        save_figure(figure(growth, published), settings.folder / "growth.png")
    return Table(
        f"EWC along {work}, one epoch a task, in one run: median step within the task, importance of all training "
        "images, state of the penalty, resident memory of the process.",
        {"task": "", "step, µs": ",.0f", "importance, s": ".3f", "state, P": ".2f", "process, MiB": ",.0f"},
        rows,
        (
            f"The penalised step of task {num_tasks} takes {late:.3f} × that of task {EARLY}, both driven in turn "
            f"({NUM_STEPS} steps at a time, median, lowest–highest).",
        ),
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


def published_step(num_terms: int, widths: Sequence[int], num_steps: int) -> float:
    """Seconds of a step when every past task is a term of the loss of its own, as most published EWC has it."""
    driver = Driver("finetune", widths, num_samples=16)
    model: nn.Module = driver.learner.backbone
    params = list(model.parameters())
    terms = [[(p.detach().clone(), torch.rand_like(p)) for p in params] for _ in range(num_terms)]
    optimizer = driver.make_optimizer(params)
    x, y = torch.rand(BATCH_SIZE, 1, 28, 28), torch.randint(10, (BATCH_SIZE,))

    def step() -> None:
        loss: Tensor = F.cross_entropy(model(x), y)
        for term in terms:
            for p, (anchor, importance) in zip(params, term, strict=True):
                loss = loss + 0.5 * (importance * (p - anchor) ** 2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step()
    return middle([seconds(step) for _ in range(num_steps)])


def resident_bytes() -> int:
    """Memory of this process now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def figure(growth: Growth, published: dict[int, float]) -> Figure:
    """Step time, penalty state and process memory against the number of the task."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    result = Figure(figsize=(10, 3.2), layout="constrained")
    FigureCanvasAgg(result)
    left, middle, right = result.subplots(1, 3)
    tasks = range(1, len(growth.steps) + 1)
    left.plot(tasks, [1e3 * s for s in growth.steps], color=COLOURS[0], label="ours (with Lightning)")
    left.plot([k + 1 for k in published], [1e3 * s for s in published.values()], "o--", color=COLOURS[1],
              label="a loss term per past task")  # fmt: skip
    left.set_ylabel("training step, ms")
    left.legend(frameon=False, loc="upper left")
    P = growth.state[0] / 2
    middle.plot(tasks, [b / P for b in growth.state], color=COLOURS[0], label="ours")
    middle.plot(tasks, [2 * k for k in tasks], "--", color=COLOURS[1], label="an anchor and an Ω per task")
    middle.set_ylabel("penalty state, × parameters")
    middle.legend(frameon=False, loc="upper left")
    right.plot(tasks, [b / 2**20 for b in growth.memory], color=COLOURS[0])
    right.set_ylabel("memory of the process, MiB")
    for axes in (left, middle, right):
        axes.set_xlabel("task")
        axes.set_ylim(0, 1.25 * axes.get_ylim()[1])  # room for the legend
        axes.spines[["top", "right"]].set_visible(False)
    return result
