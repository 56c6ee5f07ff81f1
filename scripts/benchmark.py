"""Speed against a floor written here in plain PyTorch: one process, alternating repetitions, medians, ratios.

    python scripts/benchmark.py --sections importance --json benchmark.json

A section is a function that returns rows; a row's ratio is against the row that it names as its floor.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong import importance


@dataclass(frozen=True)
class Case:
    """Something to time: `run` handles `num_samples` samples; `floor` names the case it is compared with, if any."""

    name: str
    run: Callable[[], object]
    num_samples: int
    floor: str | None = None


@dataclass(frozen=True)
class Row:
    """Samples per second: median, lowest and highest repetition, and the median's ratio to the floor's median."""

    name: str
    median: float
    low: float
    high: float
    floor: str | None
    ratio: float | None


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
            case.name,
            medians[case.name],
            min(rates[case.name]),
            max(rates[case.name]),
            case.floor,
            medians[case.name] / medians[case.floor] if case.floor else None,
        )
        for case in cases
    ]


# Importance -------------------------------------------------------------------------------------------------------


def section_importance(repetitions: int) -> list[Row]:
    """Fisher information of the MLP 784-1024-512-256-10, against a loop over single samples."""
    torch.manual_seed(0)
    widths = (784, 1024, 512, 256, 10)
    layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    model = nn.Sequential(nn.Flatten(), *layers[:-1])
    x, y = torch.rand(2048, 1, 28, 28), torch.randint(10, (2048,))
    batches = list(zip(x.split(512), y.split(512), strict=True))
    many, few, fewest = len(x), 256, 32

    def ours(labels: str) -> Callable[[], object]:
        return lambda: importance.fisher(model, batches, labels=labels)

    return measure(
        [
            Case("empirical, loop", lambda: fisher_loop(model, x[:few], y[:few], every_label=False), few),
            Case("exact, loop", lambda: fisher_loop(model, x[:fewest], y[:fewest], every_label=True), fewest),
            Case("empirical", ours("empirical"), many, floor="empirical, loop"),
            Case("exact", ours("exact"), many, floor="exact, loop"),
        ],
        repetitions,
    )


def fisher_loop(model: nn.Module, x: Tensor, y: Tensor, *, every_label: bool) -> list[Tensor]:
    """Batches of one sample and autograd: one backward pass for the true label, or one for each label there is."""
    params = list(model.parameters())
    total = [torch.zeros_like(p) for p in params]
    for x_n, y_n in zip(x.split(1), y.tolist(), strict=True):
        log_p = F.log_softmax(model(x_n), dim=1)[0]
        for k in range(len(log_p)) if every_label else [y_n]:
            gradient = torch.autograd.grad(log_p[k], params, retain_graph=True)
            weight = float(log_p[k].detach().exp()) if every_label else 1.0
            for s, g in zip(total, gradient, strict=True):
                s.addcmul_(g, g, value=weight / len(x))
    return total


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
    print(f"\n{section:<32}{'samples/s':>12}{'min':>12}{'max':>12}{'ratio':>9}")
    for row in rows:
        ratio = f"{row.ratio:.1f}x" if row.ratio is not None else "floor"
        print(f"{row.name:<32}{row.median:>12,.0f}{row.low:>12,.0f}{row.high:>12,.0f}{ratio:>9}")


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
