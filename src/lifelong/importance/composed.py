"""Operations that keep their linear maps to themselves, written out, so that each of the maps can be seen.

Attention (Vaswani et al. 2017) and recurrent layers (LSTM: Hochreiter and Schmidhuber 1997, GRU: Cho et al. 2014), as
torch defines them. Each takes the arguments of the torch function, or returns None for what it does not cover.
Legend: T time steps or tokens, S of them attended to, B samples, E features, H hidden units.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def attention(
    query: Tensor, key: Tensor, value: Tensor, width: int, num_heads: int, weight: Tensor | None, bias: Tensor | None,
    bias_k: Tensor | None, bias_v: Tensor | None, add_zero_attn: bool, dropout_p: float, out_weight: Tensor,
    out_bias: Tensor | None, **options: Any,
) -> tuple[Tensor, Tensor | None] | None:  # fmt: skip
    """F.multi_head_attention_forward; query: (T, B, E), key and value: (S, B, E)."""
    added = (
        bias_k is not None
        or add_zero_attn
        or options.get("static_k") is not None
        or options.get("static_v") is not None
    )
    if query.dim() != 3 or weight is None or added or options.get("training", True):
        return None
    sources = {id(source): source for source in (query, key, value)}
    # samples first: layers with `batch_first` have transposed them, and no copy has to turn them back
    projected = {key: F.linear(s.transpose(0, 1), weight, bias).split(width, -1) for key, s in sources.items()}

    def heads(source: Tensor, part: int) -> Tensor:
        return projected[id(source)][part].unflatten(2, (num_heads, -1)).transpose(1, 2)

    q, k, v = heads(query, 0), heads(key, 1), heads(value, 2)
    scores = (q * q.shape[3] ** -0.5) @ k.mT
    mask, padding = options.get("attn_mask"), options.get("key_padding_mask")
    if mask is not None:
        scores = _masked(scores, mask.reshape(-1, num_heads if mask.dim() == 3 else 1, *scores.shape[2:]))
    if padding is not None:
        scores = _masked(scores, padding.reshape(len(scores), 1, 1, -1))
    weights = scores.softmax(3)
    out = F.linear((weights @ v).transpose(1, 2).flatten(2), out_weight, out_bias).transpose(0, 1)
    if not options.get("need_weights", True):
        return out, None
    return out, weights.mean(1) if options.get("average_attn_weights", True) else weights


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    return scores.masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else scores + mask


State = tuple[Tensor, ...]
Cell = Callable[[Tensor, Tensor, State], State]


def lstm_cell(gi: Tensor, gh: Tensor, state: State) -> State:
    i, f, g, o = (gi + gh).chunk(4, -1)
    c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru_cell(gi: Tensor, gh: Tensor, state: State) -> State:
    (ri, zi, ni), (rh, zh, nh) = gi.chunk(3, -1), gh.chunk(3, -1)
    z, n = (zi + zh).sigmoid(), (ni + (ri + rh).sigmoid() * nh).tanh()
    return (n + z * (state[0] - n),)


def plain_cell(activation: Callable[[Tensor], Tensor], gi: Tensor, gh: Tensor, state: State) -> State:
    return (activation(gi + gh),)


def recurrent(
    cell: Cell, input: Tensor, hx: Any, params: Any, has_biases: bool, num_layers: int, dropout: float, training: bool,
    bidirectional: bool, batch_first: bool = False,
) -> tuple[Tensor, ...] | None:  # fmt: skip
    """torch.lstm, gru, rnn_tanh or rnn_relu; input: (T, B, E), or (B, T, E) with `batch_first`.

    Packed sequences, which come with other arguments, and projected states are not covered.
    """
    starts = tuple(hx) if isinstance(hx, tuple | list) else (hx,)
    size, directions = 4 if has_biases else 2, 2 if bidirectional else 1
    if not isinstance(params, list | tuple) or len(params) != size * num_layers * directions or training:
        return None
    steps = input.transpose(0, 1) if batch_first else input
    last: list[State] = []
    for _ in range(num_layers):
        outputs = []
        for direction in range(directions):
            own = params[len(last) * size : (len(last) + 1) * size]
            gates = F.linear(steps, own[0], own[2] if has_biases else None)
            state, seen = tuple(start[len(last)] for start in starts), []
            for gi in gates.flip(0) if direction else gates:
                state = cell(gi, F.linear(state[0], own[1], own[3] if has_biases else None), state)
                seen.append(state[0])
            outputs.append(torch.stack(seen[::-1] if direction else seen))
            last.append(state)
        steps = torch.cat(outputs, -1)
    ends = (torch.stack(parts) for parts in zip(*last, strict=True))
    return steps.transpose(0, 1) if batch_first else steps, *ends


COMPOSED: dict[Callable, Callable[..., Any]] = {
    F.multi_head_attention_forward: attention,
    torch.lstm: partial(recurrent, lstm_cell),
    torch.gru: partial(recurrent, gru_cell),
    torch.rnn_tanh: partial(recurrent, partial(plain_cell, torch.tanh)),
    torch.rnn_relu: partial(recurrent, partial(plain_cell, torch.relu)),
}
