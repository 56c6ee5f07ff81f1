"""Models for the tests of importance: 4 logits from few inputs, some with closed forms and some that look as if."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NUM_CLASSES = 4


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 5, bias=False), nn.ReLU(), nn.Linear(5, 4)
    )


def cnn() -> nn.Module:
    """Stride, padding of all kinds, groups, dilation, batch norm that has seen data, dropout."""
    norm = nn.BatchNorm2d(4)
    norm.running_mean, norm.running_var = torch.randn(4), torch.rand(4) + 0.5  # type: ignore[assignment]
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False),
        norm,
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 6, (2, 3), groups=2, padding="same", dilation=(1, 2)),
        nn.GroupNorm(3, 6),
        nn.Tanh(),
        nn.Conv2d(6, 2, 3, stride=(2, 1), padding=(1, 2), padding_mode="reflect"),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(20, 4),
    )


class Residual(nn.Module):
    """1×1 and depthwise convolutions in channels-last memory, added in place."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(2, 4, 3, padding=1, groups=2)
        self.shortcut = nn.Conv2d(2, 4, 1)
        self.head = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
        out = self.depthwise(x)
        out += self.shortcut(x)
        return self.head(input=out.relu().mean((2, 3)))


def signal_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 4, 3, stride=2, padding=2, padding_mode="circular"),
        nn.BatchNorm1d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 6),
        nn.BatchNorm1d(6),
        nn.Linear(6, 4),
    )


def volume_net() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 3, 2, stride=(1, 2, 1), dilation=(2, 1, 1)), nn.Flatten(), nn.Linear(24, 4))


class Tokens(nn.Module):
    """Linear layers and layer norm over positions (B, L, features), with an output head that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 4)
        self.position_norm = nn.LayerNorm((4, 5))
        self.unused = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.position_norm(self.norm(self.embed(x)).relu()).mean(1))


class BareParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(6, 4), nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.layer(x).tanh()


class TiedByFunction(nn.Module):
    """The weight of `encode` also decodes; no module says so."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.head = nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.linear(self.encode(x).relu(), self.encode.weight.t()))


class SharedParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x).tanh()))


class CalledTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.layer(x).relu()))


class PositionsInTheBatch(nn.Module):
    """(B, L, features) seen by the layer as B·L samples: summed over rows its gradient looks right."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(3, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x.flatten(0, 1)).tanh().unflatten(0, x.shape[:2]).sum(1))


class PositionsFirst(nn.Module):
    """(L, B, features) with L = 4: at four samples the leading dimension passes for the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(3, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x.transpose(0, 1)).tanh().sum(0))


class DoubledLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)


class Recurrent(nn.Module):
    """vmap has no rule for it."""

    def __init__(self) -> None:
        super().__init__()
        self.memory, self.head = nn.GRU(3, 5, batch_first=True), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.memory(x)[0][:, -1])


Model = tuple[Callable[[], nn.Module], tuple[int, ...]]

COVERED: dict[str, Model] = {
    "mlp": (mlp, (1, 2, 3)),
    "cnn": (cnn, (2, 6, 5)),
    "residual": (Residual, (2, 4, 3)),
    "signal": (signal_net, (3, 5)),
    "volume": (volume_net, (1, 4, 4, 3)),
    "tokens": (Tokens, (4, 3)),
    "linear": (lambda: nn.Linear(6, 4), (6,)),
}
UNCOVERED: dict[str, Model] = {
    "bare parameter": (BareParameter, (6,)),
    "tied by function": (TiedByFunction, (6,)),
    "shared parameter": (SharedParameter, (6,)),
    "called twice": (CalledTwice, (6,)),
    "positions in the batch": (PositionsInTheBatch, (4, 3)),
    "positions first": (PositionsFirst, (4, 3)),
    "subclass": (lambda: DoubledLinear(6, 4), (6,)),
    "activation with a weight": (lambda: nn.Sequential(nn.Linear(6, 4), nn.PReLU()), (6,)),
    "recurrent": (Recurrent, (4, 3)),
}
