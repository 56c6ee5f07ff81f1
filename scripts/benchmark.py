"""Speed against a floor written here in plain PyTorch: one process, alternating repetitions, medians, ratios.

    python scripts/benchmark.py --sections importance --json benchmark.json

A section is a function that returns rows; ratios are against the rows that a case names as its floors.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong import importance


@dataclass(frozen=True)
class Case:
    """Something to time: `run` handles `num_samples` samples; `floors` name the cases it is compared with."""

    name: str
    run: Callable[[], object]
    num_samples: int
    floors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """Samples per second: median, lowest and highest repetition, and the median's ratio to each floor's median."""

    name: str
    median: float
    low: float
    high: float
    ratios: dict[str, float]


def measure(cases: list[Case], repetitions: int) -> list[Row]:
    """Every case once as a warm-up, then all of them in turn, `repetitions` times over."""
    rates: dict[str, list[float]] = {case.name: [] for case in cases}
    for repetition in range(repetitions + 1):
        for case in cases:
            start = time.perf_counter()
            case.run()
            rate = case.num_samples / (time.perf_counter() - start)
            if repetition > 0:
                rates[case.name].append(rate)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return [
        Row(
            name=case.name,
            median=medians[case.name],
            low=min(rates[case.name]),
            high=max(rates[case.name]),
            ratios={floor: medians[case.name] / medians[floor] for floor in case.floors},
        )
        for case in cases
    ]


# Importance -------------------------------------------------------------------------------------------------------


def section_importance(repetitions: int) -> list[Row]:
    """Fisher information of the MLP 784-1024-512-256-10 against two loops over single samples, in float32.

    "empirical" takes the true label of each sample, "exact" all ten.
    """
    torch.manual_seed(0)
    widths = (784, 1024, 512, 256, 10)
    layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    model = nn.Sequential(nn.Flatten(), *layers[:-1])
    x, y = torch.rand(2048, 1, 28, 28), torch.randint(10, (2048,))
    batches = list(zip(x.split(512), y.split(512), strict=True))
    cases = []
    for labels, few in (("empirical", 256), ("exact", 32)):
        lean, published = f"{labels}: lean loop", f"{labels}: loop as published"
        start = (model, x[:few], y[:few], labels)
        cases += [
            Case(lean, partial(lean_loop, *start), few),
            Case(published, partial(published_loop, *start), few),
            Case(labels, partial(importance.fisher, model, batches, labels=labels), len(x), floors=(lean, published)),
        ]
    return measure(cases, repetitions)


def lean_loop(model: nn.Module, x: Tensor, y: Tensor, labels: str) -> list[Tensor]:
    """Batches of one sample, one forward pass, a backward pass per label, squares added in place: the best loop."""
    params = list(model.parameters())
    total = [torch.zeros_like(p) for p in params]
    for x_n, y_n in zip(x.split(1), y.tolist(), strict=True):
        log_p = F.log_softmax(model(x_n), dim=1)[0]
        p = log_p.detach().exp().tolist()
        for k in range(len(p)) if labels == "exact" else [y_n]:
            gradient = torch.autograd.grad(log_p[k], params, retain_graph=labels == "exact")
            weight = p[k] if labels == "exact" else 1.0
            for s, g in zip(total, gradient, strict=True):
                s.addcmul_(g, g, value=weight / len(x))
    return total


def published_loop(model: nn.Module, x: Tensor, y: Tensor, labels: str) -> dict[str, Tensor]:
    """The same as most published code writes it: zero_grad, backward, total += weight * p.grad ** 2."""
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for x_n, y_n in zip(x.split(1), y.split(1), strict=True):
        z = model(x_n)
        p = z.detach().softmax(1)[0]
        targets = torch.arange(len(p)).split(1) if labels == "exact" else [y_n]
        for target in targets:
            model.zero_grad()
            F.cross_entropy(z, target).backward(retain_graph=labels == "exact")
            weight = p[target] if labels == "exact" else 1.0
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None
                total[name] += weight * parameter.grad**2
    model.zero_grad()
    return {name: s / len(x) for name, s in total.items()}


SECTIONS: dict[str, Callable[[int], list[Row]]] = {"importance": section_importance}


def machine() -> dict[str, str | int]:
    return {
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def show(section: str, rows: list[Row]) -> None:
    print(f"\n{section:<32}{'samples/s':>12}{'min':>10}{'max':>10}")
    for row in rows:
        ratios = ", ".join(f"{ratio:.1f} × {floor}" for floor, ratio in row.ratios.items())
        print(f"{row.name:<32}{row.median:>12,.0f}{row.low:>10,.0f}{row.high:>10,.0f}   {ratios or 'floor'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="more pay only on a machine with nothing else to do")
    parser.add_argument("--json", type=Path, help="also write the rows and what they ran on to this file")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    ran_on = machine()
    print(", ".join(f"{key} {value}" for key, value in ran_on.items()))
    results = {}
    for section in arguments.sections:
        results[section] = SECTIONS[section](arguments.repetitions)
        show(section, results[section])
    if arguments.json:
        rows = {section: [asdict(row) for row in found] for section, found in results.items()}
        arguments.json.write_text(json.dumps({"machine": ran_on, "sections": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
