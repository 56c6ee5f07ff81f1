"""The sums of one batch by closed forms, one use of a parameter after the other.

For a linear layer with input a_n and gradient g_n at its output the gradient of one sample is the outer product
g_n ⊗ a_n, so the sum over samples of its power is one matrix product, (|G|^p)ᵀ |A|^p, and with R cotangents per sample
still one, as Σ_r moves to G. Other operations take the per-sample gradients of that one parameter, in chunks; where a
parameter has several uses, they are added before the power.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from lifelong.importance.operations import Rule, positions
from lifelong.importance.sums import Params, added, in_chunks, magnitude, magnitude_
from lifelong.importance.tape import Use


@dataclass(frozen=True, eq=False)
class Term:
    """Uses that share their rules; `a` holds the samples in its leading dimension, as the gradients then do."""

    rules: dict[str, Rule]
    a: Tensor
    uses: list[tuple[Use, int]]
    """With the dimension in which the samples lie."""

    @property
    def operation(self) -> Callable:
        return self.uses[0][0].operation

    def gradient(self, of: Mapping[Use, Tensor | None]) -> Tensor | None:
        parts = [(of[use], use, dim) for use, dim in self.uses]
        if all(g is None for g, _, _ in parts):
            return None
        dtype = torch.promote_types(parts[0][1].dtype, torch.float32)
        gs = [
            self.a.new_zeros(use.shape, dtype=dtype).movedim(dim, 0) if g is None else g.movedim(dim, 0).to(dtype)
            for g, use, dim in parts
        ]
        return gs[0] if len(gs) == 1 else torch.cat([positions(g) for g in gs], 1)


def add_uses(z: Tensor, uses: list[tuple[Use, int]], v: Tensor, sums: Params, power: int, chunk_bytes: int) -> None:
    """sums += Σ_n Σ_r |∂(v_rn · z_n)/∂θ|^power for the parameters of `uses`; frees the graph of z.

    z: (B, K), v: (R, B, K), uses: each with the dimension in which the samples lie.
    """
    if not uses or not z.requires_grad:
        return
    terms = _terms(uses)
    of_parameter: dict[str, list[Term]] = defaultdict(list)
    for term in terms:
        for name in term.rules:
            of_parameter[name].append(term)
    outer = {term for term in terms if _is_outer_product(term, of_parameter)}
    squares: dict[Term, Tensor] = {}
    outputs = [use.output for use, _ in uses]
    for r, v_r in enumerate(v):
        gradients = torch.autograd.grad(z, outputs, v_r, retain_graph=r + 1 < len(v), allow_unused=True)
        of_use = {use: g for (use, _), g in zip(uses, gradients, strict=True)}
        g_of = {term: g for term in terms if (g := term.gradient(of_use)) is not None}
        for term in outer & g_of.keys():
            squares[term] = added(squares.get(term), g_of[term], power)
        for name, own in of_parameter.items():
            pairs = [(term, g_of[term]) for term in own if term in g_of and term not in outer]
            if len(pairs) == 1 and pairs[0][0].operation is F.embedding:
                _add_lookups(name, *pairs[0], sums, power)
            elif pairs:
                _add_in_chunks(name, pairs, sums, power, chunk_bytes)
    for term, square in squares.items():
        _add_outer_products(term, square, sums, power)


def _terms(uses: Iterable[tuple[Use, int]]) -> list[Term]:
    """One a use, but calls of the same linear layer are one call with more positions."""
    alike: dict[tuple, list[tuple[Use, int]]] = defaultdict(list)
    for use, dim in uses:
        alike[(F.linear, *use.rules) if use.operation is F.linear else (use,)].append((use, dim))
    terms = []
    for group in alike.values():
        parts = [use.a.movedim(dim, 0) if dim else use.a for use, dim in group]
        a = parts[0] if len(parts) == 1 else torch.cat([positions(part) for part in parts], 1)
        terms.append(Term(group[0][0].rules, a, group))
    return terms


def _is_outer_product(term: Term, of_parameter: dict[str, list[Term]]) -> bool:
    linear = term.operation is F.linear and term.a.dim() == 2
    return linear and all(len(of_parameter[name]) == 1 for name in term.rules)


def _add_outer_products(term: Term, square: Tensor, sums: Params, power: int) -> None:
    """square: Σ_r |g_r|^power, (B, out)."""
    for name in term.rules:
        if sums[name].dim() == 2:
            sums[name].addmm_(square.t(), magnitude(term.a, power))
        else:
            sums[name].add_(square.sum(0))


def _add_lookups(name: str, term: Term, g: Tensor, sums: Params, power: int) -> None:
    """Of a table of V rows: a sample's gradient has as many rows as it has tokens, so no other row is touched."""
    num_rows = len(sums[name])
    sample = torch.arange(len(term.a), device=g.device).view(-1, *[1] * (term.a.dim() - 1))
    pairs, place = (sample * (num_rows + 1) + term.a).unique(return_inverse=True)
    each = g.new_zeros(len(pairs), g.shape[-1]).index_add_(0, place.flatten(), g.flatten(0, -2))
    rows = pairs % (num_rows + 1)
    sums[name].index_add_(0, rows[rows < num_rows], magnitude_(each, power)[rows < num_rows])


def _add_in_chunks(name: str, pairs: list[tuple[Term, Tensor]], sums: Params, power: int, chunk_bytes: int) -> None:
    """pairs: the uses of one parameter, and the gradients at their outputs, samples first."""

    def work(chunk: slice) -> None:
        total = reduce(Tensor.add_, (term.rules[name](term.a[chunk], g[chunk]) for term, g in pairs))
        sums[name].add_(magnitude_(total, power).sum(0))

    held = sums[name].numel() + sum(term.a[0].numel() * term.uses[0][0].window for term, _ in pairs)
    in_chunks(len(pairs[0][1]), chunk_bytes // (held * sums[name].element_size()), work)
