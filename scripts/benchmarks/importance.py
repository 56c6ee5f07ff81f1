"""Fisher information against a loop over single samples, and against an epoch of training."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.table import Cell, Settings, Table, in_turn, ratio, seconds, spread
from lifelong import importance
from lifelong.models.resnet import ResNet18

WIDTHS = (784, 1024, 512, 256, 10)
LABELS = ("exact", "empirical")
TOKENS, WORDS, PATCH = 16, 200, 7
BATCH = 128


@dataclass(frozen=True)
class Network:
    """What is measured.

    Attributes:
        samples: that ours and the epoch are given. few: that the loop is given, four times as many if empirical.
        least: bar of the gain over the loop, with the exact Fisher. most: bar of exact and empirical in epochs.
    """

    make: Callable[[], nn.Module]
    inputs: Callable[[int], Tensor]
    samples: int
    few: int
    least: float
    most: tuple[float, float] | None = None


class OwnScale(nn.Module):
    """Inputs times a Parameter of the model's own, and the MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.mlp = nn.Parameter(torch.ones(28)), mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x * self.scale)


class Transformer(nn.Module):
    """Two layers on words (B, 16), or on the patches of an image behind a token of their own (ViT)."""

    def __init__(self, width: int, hidden: int, *, image: bool = False) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, PATCH, PATCH) if image else nn.Embedding(WORDS, width)
        self.first = nn.Parameter(torch.zeros(1, 1, width)) if image else None
        self.place = nn.Parameter(torch.zeros(TOKENS + image, width))
        layer = nn.TransformerEncoderLayer(width, 4, hidden, 0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        if self.first is not None:
            h = torch.cat([self.first.expand(len(x), -1, -1), h.flatten(2).mT], 1)
        return self.head(self.encoder(h + self.place)[:, 0])


class Rows(nn.Module):
    """An LSTM over the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.memory, self.head = nn.LSTM(28, 64, batch_first=True), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.memory(x.squeeze(1))[0][:, -1])


def mlp(activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
    layers = [part for a, b in pairwise(WIDTHS) for part in (nn.Linear(a, b), activation())]
    return nn.Sequential(nn.Flatten(), *layers[:-1])


def images(num: int) -> Tensor:
    return torch.rand(num, 1, 28, 28)


def words(num: int) -> Tensor:
    return torch.randint(WORDS, (num, TOKENS))


NETWORKS = {
    "MLP": Network(mlp, images, 2048, 32, 32),
    "MLP, PReLU": Network(partial(mlp, nn.PReLU), images, 2048, 32, 4),
    "MLP, own Parameter": Network(OwnScale, images, 2048, 32, 4),
    "ViT, d = 32": Network(partial(Transformer, 32, 64, image=True), images, 512, 16, 10, (3, 1)),
    "transformer, d = 32": Network(partial(Transformer, 32, 128), words, 512, 16, 10),
    "transformer, d = 128": Network(partial(Transformer, 128, 512), words, 256, 16, 10),
    "LSTM": Network(Rows, images, 512, 16, 4),
    "ResNet-18, width 8": Network(
        partial(ResNet18, (3, 32, 32), 10, 8), lambda num: torch.rand(num, 3, 32, 32), 64, 8, 4
    ),
}


def measure(settings: Settings) -> Table:
    rows = [row for name, network in NETWORKS.items() for row in measured(name, network, settings)]
    return Table(
        "Diagonal Fisher information, float32; MLP: 784-1024-512-256-10. "
        '"empirical" takes the true label of each sample, "exact" all ten. × loop: how much faster than a loop over '
        "single samples; epochs: in epochs of plain training on the same samples in batches of 128. "
        "bar, at most: what was aimed at, where anything was.",
        {"network, labels": "", "samples/s": ",.0f", "× loop": ".1f", "bar": ".0f", "epochs": ".2f", "at most": ".0f"},
        rows,
    )


def measured(name: str, network: Network, settings: Settings) -> list[list[Cell]]:
    torch.manual_seed(0)
    model, total = network.make().eval(), max(network.samples // settings.shrink, 8)
    x, y = network.inputs(total), torch.randint(10, (total,))
    batches = list(zip(x.split(512), y.split(512), strict=True))
    rows: list[list[Cell]] = []
    for k, labels in enumerate(LABELS):
        few = min(max((1, 4)[k] * network.few // settings.shrink, 2), total)
        runs: dict[str, Callable[[], object]] = {
            "ours": partial(importance.fisher, model, batches, labels=labels),
            "loop": partial(lean_loop, model, x[:few], y[:few], labels),
            "epoch": partial(train, network.make(), x, y),
        }
        times = in_turn({key: partial(seconds, run) for key, run in runs.items()}, settings.repetitions or 5)
        rates = spread([total / t for t in times["ours"]])
        faster = ratio([t * total / few for t in times["loop"]], times["ours"])
        bars = network.least if labels == "exact" else None, network.most[k] if network.most else None
        rows.append([f"{name}, {labels}", rates, faster, bars[0], ratio(times["ours"], times["epoch"]), bars[1]])
    return rows


def train(model: nn.Module, x: Tensor, y: Tensor) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    for x_b, y_b in zip(x.split(BATCH), y.split(BATCH), strict=True):
        optimizer.zero_grad()
        F.cross_entropy(model(x_b), y_b).backward()
        optimizer.step()


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
