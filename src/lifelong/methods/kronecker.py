"""The quadratic of Kronecker factors. Legend: O outputs and D inputs of a layer, one input more for its bias."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lifelong.importance.kronecker import bias_of
from lifelong.methods.quadratic import Diagonal, Params, Scale

Pairs = Mapping[str, list[tuple[Tensor, Tensor]]]
"""(A (D, D), G (O, O)), several where they are a sum, by the name of a layer's weight."""


@dataclass(frozen=True)
class Kronecker:
    """q = Σ_layers Σ_pairs ⟨G ΔW A, ΔW⟩ + q of the diagonal; ΔW (O, D) is weight and bias minus their anchor.

    anchor: of all parameters; pairs: of the layers; importance: Ω of the parameters that are in no layer.
    """

    anchor: Params
    pairs: Pairs
    importance: Params

    @property
    def _diagonal(self) -> Diagonal:
        return Diagonal(self.anchor, self.importance)

    def _names(self, weight: str) -> list[str]:
        """The parameters of a layer whose columns ΔW has."""
        has_bias = len(self.pairs[weight][0][0]) > self.anchor[weight][0].numel()
        return [weight, bias_of(weight)] if has_bias else [weight]

    def _departures(self, params: Params) -> Iterator[tuple[str, Tensor]]:
        for weight in self.pairs:
            parts = [(params[n].detach() - self.anchor[n]).flatten(1) if n == weight else
                     (params[n].detach() - self.anchor[n]).unsqueeze(1) for n in self._names(weight)]  # fmt: skip
            yield weight, parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def _pull(self, weight: str, departure: Tensor) -> Tensor:
        """Σ_pairs G ΔW A: ½ ∂q/∂W."""
        each = [G.to(departure) @ departure @ A.to(departure) for A, G in self.pairs[weight]]
        return each[0] if len(each) == 1 else torch.stack(each).sum(0)

    def _add_(self, totals: Params, weight: str, moves: Tensor, scale: Scale) -> None:
        """totals += scale · moves (O, D), each parameter its columns."""
        start = 0
        for name in self._names(weight):
            total = totals[name]
            width = total[0].numel()
            total.add_(moves[:, start : start + width].reshape(total.shape), alpha=float(scale))
            start += width

    def value(self, params: Params) -> Tensor:
        each = [(self._pull(n, d) * d).sum(dtype=torch.float64) for n, d in self._departures(params)]
        if self.importance:
            each.append(self._diagonal.value(params))
        return torch.stack(each).sum()

    def gradient_norm(self, params: Params) -> Tensor:
        squares = [self._pull(n, d).square().sum(dtype=torch.float64) for n, d in self._departures(params)]
        if self.importance:
            squares.append(self._diagonal.gradient_norm(params).square())
        return torch.stack(squares).sum().sqrt()

    def add_gradient_(self, grads: Params, params: Params, scale: Scale) -> None:
        for name, departure in self._departures(params):
            self._add_(grads, name, self._pull(name, departure), scale)
        self._diagonal.add_gradient_(grads, params, scale)

    def proximal_step_(self, params: Params, scale: Scale, names: Collection[str]) -> None:
        """As `Quadratic` has it, for layers of one pair: in the eigenbases of A and G it is a division. A bias moves
        with its weight, in the place of by the rate of a group of its own."""
        for name, departure in self._departures(params):
            if name in names:
                a, U, g, V = (t.to(departure) for t in self._bases[name])
                pull = torch.outer(g, a).mul_(scale)
                pull = torch.where(torch.isinf(pull), torch.ones_like(pull), pull / (pull + 1))
                self._add_(params, name, V @ (pull * (V.T @ departure @ U)) @ U.T, -1.0)
        self._diagonal.proximal_step_(params, scale, names)

    @cached_property
    def _bases(self) -> dict[str, tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Eigenvalues and eigenvectors of A, then those of G. In float64: float32 may not converge at a low rank."""
        found = {}
        for name, ((A, G),) in self.pairs.items():
            (a, U), (g, V) = (torch.linalg.eigh(factor.double()) for factor in (A, G))
            found[name] = a.clamp_min(0).to(A), U.to(A), g.clamp_min(0).to(G), V.to(G)
        return found

    def largest_curvature(self) -> float:
        """Exact for layers of one pair; for a sum of pairs the sum of each one's largest, which is no less."""
        each = [sum(largest_eigenvalue(A) * largest_eigenvalue(G) for A, G in pairs) for pairs in self.pairs.values()]
        return max([*each, self._diagonal.largest_curvature()])

    def diagonal(self) -> dict[str, Tensor]:
        """Ω by parameter: the diagonal of Σ_pairs A ⊗ G, and that of the others."""
        found = {n: torch.zeros_like(a) for n, a in self.anchor.items()}
        for weight, pairs in self.pairs.items():
            for A, G in pairs:
                self._add_(found, weight, torch.outer(G.diagonal(), A.diagonal()), 1.0)
        return found | dict(self.importance)


def largest_eigenvalue(factor: Tensor) -> float:
    """That of a symmetric matrix."""
    return float(torch.linalg.eigvalsh(factor.double())[-1])
