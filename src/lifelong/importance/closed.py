"""The sums of one batch by closed forms, one use of a parameter after the other.

For a linear layer with input a_n and gradient g_n at its output the gradient of one sample is the outer product
g_n ⊗ a_n, so the sum over samples of its power is one matrix product, (|G|^p)ᵀ |A|^p, and with R cotangents per sample
still one, as Σ_r moves to G. Other operations take the per-sample gradients of that one parameter, all R of a chunk of
samples together if they fit; where a parameter has several uses, they are added before the power.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial, reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from lifelong.importance.operations import Rule, positions
from lifelong.importance.sums import Params, added, in_chunks, magnitude, magnitude_, samples_at_once
from lifelong.importance.tape import Use


@dataclass(frozen=True, eq=False)
class Term:
    """Uses that share their rules; `a` holds the samples in its leading dimension, as the gradients then do."""

    rules: dict[str, Rule]
    a: Tensor
    uses: list[tuple[Use, int]]
    """With the dimension in which the samples lie."""

    def gradient(self, of: Mapping[Use, Tensor | None]) -> Tensor | None:
        """At the output, (B, ...) in at least float32, of what autograd says of each use; None if of no use."""
        if all(of[use] is None for use, _ in self.uses):
            return None
        gs = []
        for use, dim in self.uses:
            g = self.a.new_zeros(use.shape) if (found := of[use]) is None else found
            gs.append(g.movedim(dim, 0).to(torch.promote_types(use.dtype, torch.float32)))
        return gs[0] if len(gs) == 1 else torch.cat([positions(g) for g in gs], 1)


def add_uses(z: Tensor, uses: list[tuple[Use, int]], v: Tensor, sums: Params, power: int) -> None:
    """sums += Σ_n Σ_r |∂(v_rn · z_n)/∂θ|^power for the parameters of `uses`; frees the graph of z.

    z: (B, K), v: (R, B, K), uses: each with the dimension in which the samples lie.
    """
    if not uses:
        return
    terms = _terms(uses)
    of_parameter: dict[str, list[Term]] = defaultdict(list)
    for term in terms:
        for name in term.rules:
            of_parameter[name].append(term)
    outer = {term for term in terms if _is_outer_product(term, of_parameter)}
    squares: dict[Term, Tensor] = {}
    found: dict[Term, list[Tensor]] = defaultdict(list)
    outputs = [use.output for use, _ in uses]
    for r, v_r in enumerate(v):
        gradients = torch.autograd.grad(z, outputs, v_r, retain_graph=r + 1 < len(v), allow_unused=True)
        of_use = {use: g for (use, _), g in zip(uses, gradients, strict=True)}
        for term in terms:
            if (g := term.gradient(of_use)) is None:
                continue
            if term in outer:
                squares[term] = added(squares.get(term), g, power)
            else:
                found[term].append(g)
    for term, square in squares.items():
        _add_outer_products(term, square, sums, power)
    for name, own in of_parameter.items():
        if pairs := [(term, found[term]) for term in own if term in found]:
            look_up = len(pairs) == 1 and pairs[0][0].uses[0][0].operation is F.embedding
            (_add_lookups if look_up else _add_in_chunks)(name, pairs, sums, power)


def _terms(uses: Iterable[tuple[Use, int]]) -> list[Term]:
    """One a use, but calls of the same linear layer are one call with more positions."""
    alike: dict[tuple, list[tuple[Use, int]]] = defaultdict(list)
    for use, dim in uses:
        alike[(F.linear, *use.rules) if use.operation is F.linear else (use,)].append((use, dim))
    terms = []
    for group in alike.values():
        parts = [use.a.movedim(dim, 0) for use, dim in group]
        a = parts[0] if len(parts) == 1 else torch.cat([positions(part) for part in parts], 1)
        terms.append(Term(group[0][0].rules, a, group))
    return terms


def _is_outer_product(term: Term, of_parameter: dict[str, list[Term]]) -> bool:
    linear = term.uses[0][0].operation is F.linear and term.a.dim() == 2
    return linear and all(len(of_parameter[name]) == 1 for name in term.rules)


def _add_outer_products(term: Term, square: Tensor, sums: Params, power: int) -> None:
    """square: Σ_r |g_r|^power, (B, out)."""
    for name in term.rules:
        if sums[name].dim() == 2:
            sums[name].addmm_(square.t(), magnitude(term.a, power))
        else:
            sums[name].add_(square.sum(0))


def _add_lookups(name: str, pairs: list[tuple[Term, list[Tensor]]], sums: Params, power: int) -> None:
    """Of a table of V rows: a sample's gradient has as many rows as it has tokens, so no other row is touched."""
    ((term, gs),), num_rows = pairs, len(sums[name])
    sample = torch.arange(len(term.a), device=term.a.device).view(-1, *[1] * (term.a.dim() - 1))
    seen, place = (sample * (num_rows + 1) + term.a).unique(return_inverse=True)
    rows = seen % (num_rows + 1)
    for g in gs:
        each = g.new_zeros(len(seen), g.shape[-1]).index_add_(0, place.flatten(), g.flatten(0, -2))
        sums[name].index_add_(0, rows[rows < num_rows], magnitude_(each, power)[rows < num_rows])


def _add_in_chunks(name: str, pairs: list[tuple[Term, list[Tensor]]], sums: Params, power: int) -> None:
    """pairs: the uses of one parameter, and the R gradients at their outputs, samples first."""
    num, size = len(pairs[0][1]), sums[name].numel()
    together = num if samples_at_once(sums[name], num * size) else 1  # of large ones each by itself is as fast

    def work(first: int, chunk: slice) -> None:
        parts = ((term, [g[chunk] for g in gs[first : first + together]]) for term, gs in pairs)
        total = reduce(Tensor.add_, (term.rules[name](term.a[chunk], part) for term, part in parts))
        each = magnitude_(total, power).view(-1, size)
        sums[name].view(-1).addmv_(each.t(), each.new_ones(len(each)))

    held = together * size + sum(term.a[0].numel() * term.uses[0][0].window for term, _ in pairs)
    for first in range(0, num, together):
        in_chunks(len(pairs[0][0].a), samples_at_once(sums[name], held), partial(work, first))
