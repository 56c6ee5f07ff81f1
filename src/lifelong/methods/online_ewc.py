"""Online EWC: Progress & Compress (Schwarz et al. 2018, arXiv 1805.06370); Huszár 2018 (arXiv 1712.03847)."""

from typing import Any

from lifelong.methods.ewc import EWC
from lifelong.methods.guards import check_number
from lifelong.methods.method import Params


class OnlineEWC(EWC):
    """(λ/2) Σ_i γ Ω_i (θ_i − θ*_i)² with Ω_k = γ Ω_{k−1} + F_k and one anchor, the latest.

    γ applies in the accumulation and in the loss, so what is held is γ Ω. γ = 1 is the recursive Laplace approximation.

    Args:
        gamma: γ in (0, 1], how much of the past survives each task.
        labels, num_samples, batch_size: as in EWC.
    """

    state = ("anchor", "importance")

    def __init__(self, strength: float, *, gamma: float = 1.0, **fisher: Any) -> None:
        super().__init__(strength, **fisher)
        check_number("gamma", gamma, low=0, high=1, above=True)
        self.gamma = gamma

    def merge(self, new: Params, weights: Params) -> None:
        held = self.importance
        self.importance = {n: self.gamma * (held[n] + F if n in held else F) for n, F in new.items()}
        self.anchor = weights
