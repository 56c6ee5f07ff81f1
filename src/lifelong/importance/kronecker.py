"""K-FAC: the Fisher of a linear layer or convolution as a Kronecker product (Ritter et al. 2018, arXiv 1805.07810).

Legend: N samples, T positions that a sample has at a layer (1 at a plain linear one, pixels at a convolution), D inputs
of a layer, one more if it has a bias, O its outputs.
"""

import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lifelong.distributed.ranks import sum_over_ranks_, total_over_ranks
from lifelong.importance.estimators import _probabilities, fisher, score_covariance
from lifelong.importance.path import recorded, survey
from lifelong.importance.sums import Batches, Params, in_chunks, samples_at_once
from lifelong.importance.tape import Use, used_otherwise
from lifelong.importance.traceless import as_model_input, leaving_no_trace

Layers = Mapping[str, nn.Module]
"""Linear layers and convolutions by the name of their weight."""


def layers_of(model: nn.Module, names: Collection[str]) -> Layers:
    """Those that a Kronecker product covers, of the weights in `names`: nn.Linear, and nn.Conv2d of one group."""
    found = {f"{name}.weight".removeprefix("."): module for name, module in model.named_modules()}
    return {n: m for n, m in found.items() if n in names and (isinstance(m, nn.Linear) or _is_plain(m))}


def _is_plain(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == 1 and module.padding_mode == "zeros"


def bias_of(weight: str) -> str:
    """The name of the bias beside a layer's weight."""
    return weight.removesuffix("weight") + "bias"


def kronecker_fisher(
    model: nn.Module, batches: Batches, names: Collection[str], *, visible: Tensor | None = None
) -> tuple[Params, Params, Params]:
    """A (D, D) and G (O, O) by each layer's weight, and the diagonal of the other parameters; of those in `names`.

    A = mean over samples and positions of a aᵀ, G = mean over samples of E_y[Σ over positions g gᵀ], y ~ p(y|x), a the
    layer's input, with 1 behind it for a bias, and g the gradient of log p(y|x) at its output. For N = T = 1 the Fisher
    of the layer is A ⊗ G exactly. The means are those of all ranks' samples, and the model is left as it was.

    Raises:
        ValueError: no sample in `batches`, or a layer's parameter that is used in another way too.
    """
    layers = layers_of(model, names)
    biased = {n: bias_of(n) in names for n in layers}
    own = {*layers, *(bias_of(n) for n in layers if biased[n])}
    params = dict(model.named_parameters())
    A = {n: _zeros(params[n], params[n][0].numel() + biased[n]) for n in layers}
    G = {n: _zeros(params[n], len(params[n])) for n in layers}
    num, size = 0, 0

    def add(x: Tensor, chunk: slice) -> None:
        new_A, new_G = _sums_of_batch(model, as_model_input(model, x[chunk]), layers, biased, own, visible)
        for sums, new in ((A, new_A), (G, new_G)):
            for n, s in new.items():
                sums[n] += s

    def watched() -> Iterator[tuple[Tensor, Tensor]]:
        nonlocal num, size
        for x, y in batches:
            with leaving_no_trace(model):
                size = size or (1 if survey(model, as_model_input(model, x)).mixing else sys.maxsize)
                size = in_chunks(len(x), size, partial(add, x))
            num += len(x)
            yield x, y

    if others := set(names) - own:
        diagonal = fisher(model, watched(), visible=visible)
    else:
        num = sum(len(x) for x, _ in watched())
    sum_over_ranks_([*A.values(), *G.values()])
    count = total_over_ranks(num)
    if count == 0:
        raise ValueError("batches must hold at least one sample, got none")
    A, G = ({n: s / count for n, s in sums.items()} for sums in (A, G))
    return A, G, {n: diagonal[n] for n in names if n in others}


def _zeros(like: Tensor, size: int) -> Tensor:
    return like.new_zeros(size, size, dtype=torch.promote_types(like.dtype, torch.float32))


def _sums_of_batch(
    model: nn.Module, x: Tensor, layers: Layers, biased: Mapping[str, bool], own: set[str], visible: Tensor | None
) -> tuple[Params, Params]:
    """Sums over the samples x of what A and G are means of."""
    uses, z = recorded(model, x)
    mine = [(use, name) for use in uses for name in use.rules if name in layers]
    if others := used_otherwise(z, [use for use, _ in mine], model) & own:
        raise ValueError(f"backbone must use {min(others)} in its layer alone with a Kronecker penalty")
    if not mine:
        return {}, {}
    new_A: Params = {}
    rows: dict[str, int] = defaultdict(int)
    for use, name in mine:
        summed, num = _products_of_inputs(use, layers[name], biased[name])
        new_A[name] = new_A[name] + summed if name in new_A else summed
        rows[name] += num
    p, columns = _probabilities(z.detach(), visible)
    v, w = score_covariance(p, columns)
    new_G: Params = {}
    for r, v_r in enumerate((v * w.sqrt().unsqueeze(-1)).to(z.dtype)):
        outputs = [use.output for use, _ in mine]
        found = torch.autograd.grad(z, outputs, v_r, retain_graph=r + 1 < len(v), allow_unused=True)
        for (use, name), g in zip(mine, found, strict=True):
            if g is not None:
                g = _rows(g if use.operation is F.linear else g.movedim(1, -1))
                new_G[name] = torch.addmm(new_G[name], g.T, g) if name in new_G else g.T @ g
    return {n: s * (len(x) / rows[n]) for n, s in new_A.items()}, new_G


def _products_of_inputs(use: Use, layer: Any, biased: bool) -> tuple[Tensor, int]:
    """Σ a aᵀ over samples and positions, and their number. The windows of a convolution are made in parts."""
    if use.operation is F.linear:
        a = _rows(_with_one(use.a, biased))
        return a.T @ a, len(a)
    unfold = partial(F.unfold, kernel_size=layer.kernel_size, dilation=layer.dilation, stride=layer.stride)
    padded = F.pad(use.a, layer._reversed_padding_repeated_twice)
    positions = use.shape[2:].numel()
    held = positions * layer.weight[0].numel()
    total: Tensor | None = None
    for part in padded.split(max(1, samples_at_once(padded, held))):
        a = _rows(_with_one(unfold(part).mT, biased))
        total = a.T @ a if total is None else total.addmm_(a.T, a)
    assert total is not None
    return total, len(padded) * positions


def _with_one(a: Tensor, biased: bool) -> Tensor:
    return F.pad(a, (0, 1), value=1.0) if biased else a


def _rows(t: Tensor) -> Tensor:
    """(..., features) → (number of positions, features), in at least float32."""
    return t.reshape(-1, t.shape[-1]).to(torch.promote_types(t.dtype, torch.float32))
