"""Fisher information against a loop over single samples."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.table import Cell, Settings, Table, in_turn, ratio, seconds, spread
from lifelong import importance

WIDTHS = (784, 1024, 512, 256, 10)
NUM_SAMPLES = {"empirical": 256, "exact": 32}
"""What a loop over single samples is given; ours takes 2048."""


def measure(settings: Settings) -> Table:
    torch.manual_seed(0)
    layers = [part for a, b in pairwise(WIDTHS) for part in (nn.Linear(a, b), nn.ReLU())]
    model = nn.Sequential(nn.Flatten(), *layers[:-1])
    total = max(2048 // settings.shrink, 16)
    x, y = torch.rand(total, 1, 28, 28), torch.randint(10, (total,))
    batches = list(zip(x.split(512), y.split(512), strict=True))
    rows: list[list[Cell]] = []
    for labels, most in NUM_SAMPLES.items():
        few = max(most // settings.shrink, 4)
        runs: dict[str, Callable[[], object]] = {
            "ours": partial(importance.fisher, model, batches, labels=labels),
            "loop": partial(lean_loop, model, x[:few], y[:few], labels),
        }
        times = in_turn({name: partial(seconds, run) for name, run in runs.items()}, settings.repetitions or 7)
        rates = {name: [(total if name == "ours" else few) / t for t in ts] for name, ts in times.items()}
        for name, values in rates.items():
            faster = None if name == "ours" else ratio(rates["ours"], values)
            rows.append([f"{labels}, {name}", spread(values), faster])
    return Table(
        "Diagonal Fisher information of the MLP 784-1024-512-256-10, float32. "
        '"empirical" takes the true label of each sample, "exact" all ten.',
        {"labels, how": "", "samples/s": ",.0f", "ours is × faster": ".1f"},
        rows,
    )


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
