"""What each method costs on a device: whole streams of tasks as `python train.py` runs them."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from statistics import median

import torch

from benchmarks.stream import WORKLOADS, Workload, learn_ours, read_source
from benchmarks.table import Cell, Settings, Table, in_turn, ratio
from lifelong.config.build import build
from lifelong.config.groups import choices
from lifelong.config.schema import compose
from lifelong.data.source import Source
from lifelong.methods.method import Method
from lifelong.runs.environment import peak_memory_bytes
from lifelong.training.precision import set_tf32

RESNET = ("backbone=resnet18", "backbone.width=64")
ALL: dict[str, Workload] = {
    **WORKLOADS,
    "W3": Workload(100, 2_560, 100),
    "ResNet-18": Workload(5, 10_000, 2_000, image_shape=(3, 32, 32), network=RESNET),
}
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
    by = settings.shrink
    works = {name: replace(work.shrunk(by), num_tasks=max(work.num_tasks // by, 2)) for name, work in workloads.items()}
    device = torch.cuda.get_device_name() if settings.device == "cuda" else "this CPU"
    described = "; ".join(f"{name}: {work}" for name, work in works.items())
    return Table(
        f"Streams of permuted synthetic images on {device}, one epoch a task, fused Adam, float32 without TF32, "
        f"default settings of each method, validation off. {described}. "
        "Training: relative to finetune's in turn, median (lowest–highest); joint's task k has the data of k tasks. "
        "Peak: of the device's allocator in the method's last run; on a CPU of the whole process so far.",
        COLUMNS,
        [row for name, work in works.items() for row in rows_of(name, work, settings)],
    )


def rows_of(name: str, work: Workload, settings: Settings) -> list[list[Cell]]:
    """One for each method on one workload, finetune first."""
    repetitions, source = settings.repetitions or 3, read_source(work, None)
    methods = sorted(filter(runnable, choices("method")), key=lambda method: method != "finetune")
    runs = {m: partial(timed, work, source, m, settings.device) for m in methods}
    found = in_turn(runs, repetitions, warm_up=repetitions > 1)
    rows: list[list[Cell]] = []
    for method, outcomes in found.items():
        whole, train, importance, evaluation = (
            [seconds[phase] for seconds in outcomes] for phase in ("whole", "train", "importance", "evaluation")
        )
        seen = work.samples("train") * ((work.num_tasks + 1) / 2 if method == "joint" else 1)
        relative = ratio(train, [seconds["train"] for seconds in found["finetune"]])
        after = (median(importance) / work.num_tasks, work.samples("evaluation") / median(evaluation))
        rows.append(
            [f"{name} {method}", median(whole), seen / median(train), relative, *after, outcomes[-1]["peak"] / 2**20]
        )
    return rows


def runnable(method: str) -> bool:
    """Whether it learns a domain-incremental stream, without a reservoir."""
    built = made(method)
    return "domain" in built.scenarios and not getattr(built, "needs_logits", False)


def made(method: str) -> Method:
    found: Method = build(compose([f"method={method}"]).method, "method")
    return found


def timed(work: Workload, source: Source, method: str, device: str) -> dict[str, float]:
    """Seconds of a run by phase, and its "peak" memory in bytes."""
    trainer = "trainer=gpu" if device == "cuda" else "trainer=cpu"
    settings = [f"method={method}", trainer, *(["memory=uniform"] if made(method).needs_memory else [])]
    set_tf32(False, torch.device(device))
    seconds = learn_ours(work, source, settings=settings).seconds
    return {**seconds, "peak": peak_memory_bytes(torch.device(device))}
