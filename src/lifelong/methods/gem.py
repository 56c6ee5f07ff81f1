"""GEM: Gradient episodic memory for continual learning (Lopez-Paz & Ranzato 2017, arXiv 1706.08840)."""

import numpy as np
import torch
from torch import Tensor

from lifelong.methods.guards import check_choice, check_number
from lifelong.methods.method import Params
from lifelong.methods.replay import Replay


class GEM(Replay):
    """g̃ = argmin ½‖g̃ − g‖², G g̃ ≥ 0, where a row of G g is negative; G (t − 1, P): a gradient for each earlier task.

    g̃ = g + Gᵀ(v + γ), v of the dual, t − 1 numbers. A step takes t − 1 more passes and holds G: its time and its memory
    grow with the number of tasks, as in the paper.

    Args:
        batch_size: exemplars of each earlier task.
        margin: γ, the paper's memory strength.
        bound: take v of the dual under v ≥ γ, as the paper's code does, and g̃ = g + Gᵀv.
        ridge: added to the diagonal of GGᵀ in the dual; the paper's code has 1e-3.
        rehearse: train on the exemplars, too, as `memory.replay` says (the code of Hsu et al. 2018).
    """

    past_only = True

    def __init__(
        self,
        batch_size: int = 256,
        margin: float = 0.5,
        bound: bool = False,
        ridge: float = 0.0,
        rehearse: bool = False,
    ) -> None:
        super().__init__(batch_size)
        check_number("margin", margin, low=0)
        check_number("ridge", ridge, low=0)
        check_choice("bound", bound, (True, False))
        check_choice("rehearse", rehearse, (True, False))
        self.margin, self.bound, self.ridge = float(margin), bound, float(ridge)
        self.replays = not rehearse

    def edit_gradients(self, grads: Params) -> None:
        g, rows = list(grads.values()), self.rows()
        tasks = self.memory.tasks[rows]
        G = [self.reference(self.replayed(k, rows=rows[tasks == k])) for k in np.unique(tasks).tolist()]
        blocks = [torch.stack([row[i].flatten() for row in G]).double() for i in range(len(g))]
        gram = torch.stack([block @ block.T for block in blocks]).sum(0)
        along = torch.stack([block @ part.flatten().double() for block, part in zip(blocks, g, strict=True)]).sum(0)
        if bool((along < 0).any() & along.isfinite().all()):  # a step of float16 that overflows is skipped
            gram.diagonal().add_(self.ridge)
            along = along + self.margin * gram.sum(1) if self.bound else along
            for v, row in zip((dual(gram.cpu(), along.cpu()) + self.margin).tolist(), G, strict=True):
                torch._foreach_add_(g, row, alpha=v)


def dual(gram: Tensor, along: Tensor) -> Tensor:
    """argmin_v ½ vᵀ gram v + alongᵀ v, v ≥ 0, as min ‖S v + c‖² with SᵀS = gram and Sᵀc = along; float64.

    gram (k, k) = GGᵀ, along (k,) = Gg. Rows of G are scaled to length 1 meanwhile, so that no task is lost in rounding.
    """
    from scipy.optimize import nnls  # a quarter of a second, for GEM alone

    lengths = torch.where(gram.diagonal() > 0, gram.diagonal().sqrt(), 1.0)
    values, vectors = torch.linalg.eigh(gram / lengths.outer(lengths))
    kept = values > len(values) * torch.finfo(torch.float64).eps * values[-1]
    roots, axes = values[kept].sqrt(), vectors[:, kept]
    S, c = roots[:, None] * axes.T, axes.T @ (along / lengths) / roots
    return torch.from_numpy(nnls(S.numpy(), -c.numpy())[0]) / lengths
