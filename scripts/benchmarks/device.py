"""What each method costs on a device: whole streams of tasks as `python train.py` runs them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch

from benchmarks.stream import WORKLOADS, Workload, learn_ours, read_source
from benchmarks.table import Cell, Settings, Table, in_turn, middle, ratio
from lifelong.config.groups import choices
from lifelong.data.source import Source
from lifelong.runs.environment import peak_memory_bytes
from lifelong.training.precision import set_tf32


@dataclass(frozen=True)
class Residual(Workload):
    """The same with 32 × 32 colour images and a ResNet-18 of this width."""

    width: int = 64

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (3, 32, 32)

    @property
    def backbone(self) -> tuple[str, ...]:
        return ("backbone=resnet18", f"backbone.width={self.width}")

    def __str__(self) -> str:
        return f"{self.sizes}, 3 × 32 × 32, ResNet-18 of width {self.width}"

    def shrunk(self, by: int) -> "Residual":
        num_train, num_test = (max(size // by, 1) for size in (self.num_train, self.num_test))
        return replace(self, num_train=num_train, num_test=num_test, width=max(self.width // by, 4))


ALL: dict[str, Workload] = {
    "W1": WORKLOADS["W1"],
    "W2": WORKLOADS["W2"],
    "W3": Workload(100, 2_560, 100),
    "W4": WORKLOADS["W4"],
    "ResNet-18": Residual(5, 10_000, 2_000),
}
OVER_MEMORY = ("agem",)
COLUMNS = {
    "": "",
    "whole, s": ".2f",
    "training, samples/s": ",.0f",
    "training, × finetune": ".2f",
    "importance, s a task": ".3f",
    "evaluation, samples/s": ",.0f",
    "peak, MiB": ",.0f",
}


def measure(settings: Settings, workloads: Mapping[str, Workload] = ALL) -> Table:
    repetitions, by = settings.repetitions or 3, settings.shrink
    works = {name: replace(work.shrunk(by), num_tasks=max(work.num_tasks // by, 2)) for name, work in workloads.items()}
    rows = [row for name, work in works.items() for row in rows_of(name, work, settings, repetitions)]
    described = "; ".join(f"{name}: {work}" for name, work in works.items())
    return Table(
        f"Streams of permuted synthetic images on {device_name(settings.device)}, one epoch a task, fused Adam, "
        f"float32 without TF32, default settings of each method, validation off. {described}. Training: relative to "
        f"finetune's in turn, median (lowest–highest) of {repetitions}; joint's task k has the data of k tasks. "
        "Peak: of the device's allocator in the method's last run; on a CPU of the whole process so far.",
        COLUMNS,
        rows,
    )


def rows_of(name: str, work: Workload, settings: Settings, repetitions: int) -> list[list[Cell]]:
    """One for each method on one workload, finetune first."""
    source = read_source(work, None)
    methods = sorted(choices("method"), key=lambda method: method != "finetune")
    runs = {m: partial(timed, work, source, m, settings.device) for m in methods}
    found = in_turn(runs, repetitions, warm_up=repetitions > 1)
    base = [seconds["train"] for seconds in found["finetune"]]
    rows: list[list[Cell]] = []
    for method, outcomes in found.items():
        whole, train, importance, evaluation = (
            [seconds[phase] for seconds in outcomes] for phase in ("whole", "train", "importance", "evaluation")
        )
        seen = work.samples("train") * ((work.num_tasks + 1) / 2 if method == "joint" else 1)
        rows.append(
            [
                f"{name} {method}",
                middle(whole),
                seen / middle(train),
                ratio(train, base),
                middle(importance) / work.num_tasks,
                work.samples("evaluation") / middle(evaluation),
                outcomes[-1]["peak"] / 2**20,
            ]
        )
    return rows


def timed(work: Workload, source: Source, method: str, device: str) -> dict[str, float]:
    """Seconds of a run by phase, and its "peak" memory in bytes."""
    trainer = "trainer=gpu" if device == "cuda" else "trainer=cpu"
    settings = [f"method={method}", trainer, *(["memory=uniform"] if method in OVER_MEMORY else [])]
    if device == "cuda":
        set_tf32(False, torch.device(device))
    seconds = learn_ours(work, source, settings=settings).seconds
    return {**seconds, "peak": peak_memory_bytes(torch.device(device))}


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "this CPU"
