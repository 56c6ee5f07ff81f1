"""A-GEM: Efficient lifelong learning with A-GEM (Chaudhry et al. 2019, arXiv 1812.00420, eq. 11)."""

import torch

from lifelong.methods.method import Params
from lifelong.methods.replay import Replay


class AGEM(Replay):
    """Where g · g_ref < 0: g ← g − (g · g_ref / g_ref · g_ref) g_ref, g_ref the gradient on a batch from memory.

    All parameters are one vector. Exemplars are of earlier tasks.

    Args:
        batch_size: exemplars that g_ref is a mean over.
    """

    past_only = True

    def __init__(self, batch_size: int = 256) -> None:
        super().__init__(batch_size)

    def edit_gradients(self, grads: Params) -> None:
        g = list(grads.values())
        reference = [b.double() for b in self.reference(self.replayed())]  # in float32 the square of a short one is 0
        dot = torch.stack([(a * b).sum() for a, b in zip(g, reference, strict=True)]).sum()
        square = torch.stack([b.square().sum() for b in reference]).sum()
        factor = torch.where(dot < 0, -dot / square, 0.0)  # the host does not wait to know
        torch._foreach_add_(g, [(factor * b).to(a.dtype) for a, b in zip(g, reference, strict=True)])
