"""A-GEM: Efficient lifelong learning with A-GEM (Chaudhry et al. 2019, arXiv 1812.00420, eq. 11)."""

import torch

from lifelong.distributed.ranks import mean_over_ranks_
from lifelong.methods.guards import check_number
from lifelong.methods.method import Params
from lifelong.methods.replay import Replay


class AGEM(Replay):
    """Where g · g_ref < 0: g ← g − (g · g_ref / g_ref · g_ref) g_ref, g_ref the gradient on a batch from memory.

    All parameters are one vector. The batch is run as in training (dropout, batch norm's statistics of the batch).

    Args:
        batch_size: exemplars that g_ref is a mean over.
    """

    def __init__(self, batch_size: int = 256) -> None:
        check_number("batch_size", batch_size, low=1, whole=True)
        self.batch_size = batch_size

    def edit_gradients(self, grads: Params) -> None:
        g, reference = list(grads.values()), self.reference()
        dot = torch.stack([(a * b).sum(dtype=torch.float64) for a, b in zip(g, reference, strict=True)]).sum()
        square = torch.stack([b.square().sum(dtype=torch.float64) for b in reference]).sum()
        factor = torch.where(dot < 0, -dot / square, 0.0)  # the host does not wait to know
        torch._foreach_add_(g, torch._foreach_mul(reference, factor.to(g[0].dtype)))

    def reference(self) -> list[torch.Tensor]:
        """g_ref, one tensor a parameter, the same on every rank."""
        batch, params = self.replayed(self.batch_size), list(self._params.values())
        with torch.enable_grad():
            loss = self.learner.task_loss(self.learner.logits(batch.x), batch.y) * batch.weight
            found = torch.autograd.grad(loss, params, allow_unused=True, materialize_grads=True)
        mean_over_ranks_(found)
        return list(found)
