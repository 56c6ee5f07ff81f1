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


class OwnParameters(nn.Module):
    """A map, a first token, an embedding of positions, a scale per unit and one for all, that no layer holds."""

    def __init__(self) -> None:
        super().__init__()
        self.map, self.first = nn.Parameter(torch.randn(3, 5)), nn.Parameter(torch.randn(1, 1, 5))
        self.position, self.scale = nn.Parameter(torch.randn(1, 5, 5)), nn.Parameter(torch.randn(5))
        self.gate, self.head = nn.Parameter(torch.randn(())), nn.Linear(5, 4)
        self.late = nn.Parameter(torch.randn(5))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.cat([self.first.expand(len(x), -1, -1), x @ self.map], 1) + self.position
        h = h + self.gate * (h.tanh() * self.scale)
        h += self.late
        return self.head(h.tanh_().mean(1))


class TiedTokens(nn.Module):
    """Four tokens, one of them padding, read and predicted by one matrix; another table is not shared."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.other = nn.Embedding(4, 5, padding_idx=1), nn.Embedding(7, 5, padding_idx=-1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = (10 * x.abs()).long()
        h = self.table(tokens % 4) * self.other(tokens % 7)
        return F.linear(h.tanh().mean((1, 2)), self.table.weight)


class Attention(nn.Module):
    """To itself with both kinds of mask, and to another sequence; with and without weights, both layouts."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(3, 6), nn.Linear(6, 4)
        self.own = nn.MultiheadAttention(6, 2, batch_first=True)
        self.other = nn.MultiheadAttention(6, 3, bias=False)
        self.three = nn.MultiheadAttention(6, 1, batch_first=True)
        self.register_buffer("per_head", torch.randn(2, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        late = torch.ones(4, 4, dtype=torch.bool).triu(1)
        padded = x[:, :, 0] > 0.5
        padded[:, 0] = False
        a, _ = self.own(h, h, h, attn_mask=late, key_padding_mask=padded, need_weights=False)
        a = a + self.own(h, h, h, attn_mask=self.per_head.repeat(len(x), 1, 1))[0]
        b, weights = self.other(a.transpose(0, 1), h.transpose(0, 1), h.transpose(0, 1))
        c, _ = self.three(h, a, b.transpose(0, 1), average_attn_weights=False)
        return self.head(b.mean(0) + c.sum(1) * weights[:, :1, 0])


class Transformer(nn.Module):
    """Tokens first, then samples, as is torch's default; at four samples or tokens both look alike."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(3, 6), nn.Linear(6, 4)
        self.encoder = nn.TransformerEncoderLayer(6, 2, 7, norm_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x.transpose(0, 1)))[0])


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True)
        self.gru, self.plain = nn.GRU(8, 5, num_layers=2, bias=False), nn.RNN(5, 4, nonlinearity="relu")
        self.tanh = nn.RNN(4, 4, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        out, (h, c) = self.lstm(x)
        out, last = self.gru(out.transpose(0, 1))
        out, _ = self.plain(out, torch.ones(1, len(x), 4, dtype=x.dtype))
        return self.tanh(out)[1].sum(0) + h[0] + c[3] + last[0][:, :4]


class PackedSequence(nn.Module):
    """vmap has no rule for it, and it has no closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.memory, self.head = nn.GRU(3, 5, batch_first=True), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.full((len(x),), 4), batch_first=True)
        return self.head(self.memory(packed)[1][0])


class Uncommon(nn.Module):
    """What is left to torch.func: other layers, other ways to use a parameter, options that few set."""

    def __init__(self) -> None:
        super().__init__()
        self.pair, self.up = nn.Bilinear(6, 6, 5), nn.ConvTranspose1d(1, 1, 3)
        self.norm, self.scale = nn.InstanceNorm1d(1, affine=True), nn.Parameter(torch.randn(5, 1))
        self.attend = nn.MultiheadAttention(5, 1, kdim=6, vdim=6, add_bias_kv=True, batch_first=True)
        self.bag, self.head = nn.EmbeddingBag(3, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.pair(x, self.norm(x.unsqueeze(1)).squeeze(1)) * self.scale.squeeze(1)
        h = h + self.up(x.unsqueeze(1))[:, 0, :5] + self.bag((9 * x.abs()).long() % 3)
        return self.head(h + self.attend(h.unsqueeze(1), x.unsqueeze(1), x.unsqueeze(1))[0].squeeze(1))


Model = tuple[Callable[[], nn.Module], tuple[int, ...]]

COVERED: dict[str, Model] = {
    "mlp": (mlp, (1, 2, 3)),
    "cnn": (cnn, (2, 6, 5)),
    "residual": (Residual, (2, 4, 3)),
    "signal": (signal_net, (3, 5)),
    "volume": (volume_net, (1, 4, 4, 3)),
    "tokens": (Tokens, (4, 3)),
    "linear": (lambda: nn.Linear(6, 4), (6,)),
    "bare parameter": (BareParameter, (6,)),
    "own parameters": (OwnParameters, (4, 3)),
    "shared parameter": (SharedParameter, (6,)),
    "called twice": (CalledTwice, (6,)),
    "positions first": (PositionsFirst, (4, 3)),
    "subclass": (lambda: DoubledLinear(6, 4), (6,)),
    "activations with weights": (
        lambda: nn.Sequential(nn.Conv1d(2, 3, 2), nn.PReLU(3), nn.Flatten(), nn.PReLU(), nn.Linear(6, 4), nn.PReLU(4)),
        (2, 3),
    ),
    "tied tokens": (TiedTokens, (4, 3)),
    "attention": (Attention, (4, 3)),
    "transformer": (Transformer, (4, 3)),
    "recurrent": (Recurrent, (4, 3)),
}
UNCOVERED: dict[str, Model] = {
    "tied by function": (TiedByFunction, (6,)),
    "positions in the batch": (PositionsInTheBatch, (4, 3)),
    "packed sequence": (PackedSequence, (4, 3)),
    "uncommon": (Uncommon, (6,)),
}
