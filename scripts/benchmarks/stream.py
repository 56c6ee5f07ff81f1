"""Whole streams: ours against the floor, phase by phase."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from rich.console import Console
from torch import Tensor

from benchmarks import floor
from benchmarks.table import Cell, Settings, Table, in_turn, ratio
from lifelong.config.build import build
from lifelong.config.schema import compose
from lifelong.data.examples import Examples
from lifelong.data.source import Source
from lifelong.data.sources.idx import idx
from lifelong.data.stream import Task
from lifelong.experiment.parts import build_run
from lifelong.experiment.run import Request, watched
from lifelong.runs.folder import RunFolder
from lifelong.tracking import quiet_libraries
from lifelong.training.loop import Run, new_garbage, run_stream

LR, STRENGTH = 1e-3, 1000.0
EWC_ON_CPU = ("method=ewc", "method.labels=empirical", f"method.strength={STRENGTH}", "trainer=cpu")
PHASES = ("train", "importance", "evaluation")


@dataclass(frozen=True)
class Workload:
    """T permuted tasks of as many training and test images, one epoch each.

    network: another than the MLP of these widths, as on the command line.
    """

    num_tasks: int
    num_train: int
    num_test: int
    batch_size: int = 128
    widths: tuple[int, ...] = (400, 400)
    image_shape: tuple[int, int, int] = (1, 28, 28)
    network: tuple[str, ...] = ()

    def __str__(self) -> str:
        sizes = f"{self.num_tasks} × ({self.num_train:,} training + {self.num_test:,} test images)"
        network = " ".join(self.network) or "-".join(map(str, (784, *self.widths, 10)))
        return f"{sizes}, batch {self.batch_size}, {network}"

    def shrunk(self, by: int) -> "Workload":
        return replace(self, num_train=max(self.num_train // by, 1), num_test=max(self.num_test // by, 1))

    def samples(self, phase: str) -> int:
        """How many samples a phase handles: every task is tested before the first and after each."""
        return self.num_tasks * ((self.num_tasks + 1) * self.num_test if phase == "evaluation" else self.num_train)


WORKLOADS = {
    "W1": Workload(5, 60_000, 10_000),
    "W2": Workload(20, 10_000, 1_000),
    "W4": Workload(5, 10_000, 2_000, batch_size=10, widths=(256, 256)),
}


def measure(settings: Settings) -> Table:
    repetitions = settings.repetitions or 3
    rows: list[list[Cell]] = []
    works = {name: work.shrunk(settings.shrink) for name, work in WORKLOADS.items()}
    learners: tuple[Callable[..., floor.Outcome], ...] = (learn_ours, learn_floor)
    first = WORKLOADS["W1"].shrunk(100)
    for learn in learners:  # what only a process's first run pays
        learn(first, read_source(first, settings.fashion_mnist))
    for name, work in works.items():
        source = read_source(work, settings.fashion_mnist)
        runs = {learn.__name__: partial(learn, work, source) for learn in learners}
        outcomes = in_turn(runs, repetitions, warm_up=False).values()
        for phase in ("whole", *PHASES):
            times = [[o.seconds[phase] for o in one] for one in outcomes]
            medians = [median(t) for t in times]
            rates = [None if phase == "whole" else work.samples(phase) / s for s in medians]
            rows.append([f"{name} {phase}", *medians, ratio(*times), *rates])
    data = "Fashion-MNIST" if settings.fashion_mnist else "synthetic images of Fashion-MNIST's size"
    described = "; ".join(f"{name}: {work}" for name, work in works.items())
    return Table(
        f"EWC with the empirical Fisher of all training images over a stream of permuted {data}, one epoch a task, "
        f"fused Adam at {LR:g}, validation off. {described}. Ours is run_stream as the package experiment wires it, "
        "history and checkpoints on disk included; the floor is plain PyTorch (scripts/benchmarks/floor.py), which "
        "computes the same up to rounding. Both test every task before the first and after each. × floor: of the times "
        f"side by side, median (lowest–highest) of {repetitions}.",
        {
            "": "",
            "ours, s": ".2f",
            "floor, s": ".2f",
            "× floor": ".2f",
            "ours, samples/s": ",.0f",
            "floor, samples/s": ",.0f",
        },
        rows,
    )


def learn_floor(work: Workload, source: Source, strength: float = STRENGTH) -> floor.Outcome:
    train, test = ((part.inputs.flatten(1), part.labels) for part in (source.train, source.test))
    return floor.learn_stream(train, test, work.num_tasks, work.widths, work.batch_size, LR, strength)


@new_garbage()
def learn_ours(
    work: Workload,
    source: Source,
    *,
    on_row: Callable[[Run], None] = lambda run: None,
    settings: Sequence[str] = EWC_ON_CPU,
) -> floor.Outcome:
    """What `python train.py` does between reading its configuration and drawing its pictures."""
    config = compose(
        [
            *settings, *(work.network or [f"backbone.widths={list(work.widths)}"]), f"optimizer.lr={LR}",
            "trainer.max_epochs=1", "val_fraction=0", "logger=none",
            "dataset=permuted", f"dataset.num_tasks={work.num_tasks}", f"batch_size={work.batch_size}",
        ]
    )  # fmt: skip
    quiet_libraries()
    with TemporaryDirectory() as folder:
        start = perf_counter()
        run = build_run(config, build(config.dataset, "dataset", source=source, resident_bytes=config.resident_bytes))
        with watched(run, Request(config, RunFolder(Path(folder)), Console(quiet=True))):
            logged = run.on_row

            def row(task: Task) -> None:
                logged(task)
                on_row(run)

            run.on_row = row
            matrix = run_stream(run)
        seconds = {**run.record.seconds, "whole": perf_counter() - start}
    weights = torch.cat([p.detach().flatten() for p in run.learner.backbone.parameters()])
    return floor.Outcome(weights, matrix, seconds)


def read_source(work: Workload, fashion_mnist: Path | None) -> Source:
    """The first images of Fashion-MNIST, or blurred classes under noise of the same shape."""
    if fashion_mnist is None:
        g = torch.Generator().manual_seed(0)
        means = torch.randint(0, 200, (10, *work.image_shape), generator=g, dtype=torch.uint8)
        train, test = (synthetic(means, num, g) for num in (work.num_train, work.num_test))
    else:
        whole = idx(str(fashion_mnist))
        train, test = (
            Examples(part.inputs[:num], part.labels[:num])
            for part, num in ((whole.train, work.num_train), (whole.test, work.num_test))
        )
    return Source("benchmark", train, test, tuple(map(str, range(10))))


def synthetic(means: Tensor, num: int, generator: torch.Generator) -> Examples:
    """Each class a picture (10, C, H, W) of its own, three in ten labels wrong, so that no loss goes to zero."""
    classes = torch.randint(10, (num,), generator=generator)
    noise = torch.randint(0, 56, (num, *means.shape[1:]), generator=generator, dtype=torch.uint8)
    wrong = torch.rand(num, generator=generator) < 0.3
    labels = torch.where(wrong, torch.randint(10, (num,), generator=generator), classes)
    return Examples(means[classes] + noise, labels)
