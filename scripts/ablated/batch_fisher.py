"""EWC with the square of batch-mean gradients in the place of the Fisher: what not to do."""

import torch
from torch.nn import functional as F

from lifelong.penalties.base import Batches, Learned, Params
from lifelong.penalties.ewc import EWC

BATCH = 128


class BatchFisher(EWC):
    """Ω = mean over batches of 128 of (∂ mean loss of the batch/∂θ)², true labels.

    Near an optimum single samples' gradients cancel in the mean: some 1/128 of the Fisher, and another ranking.
    """

    def importance_of_task(self, learner: Learned, batches: Batches, generator: torch.Generator) -> Params:
        params = self.held(learner.backbone)
        total: Params = {name: torch.zeros_like(p) for name, p in params.items()}
        seen = 0
        for images, labels in batches:
            for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True):
                logits = learner.backbone(x).masked_fill(~learner.visible, -torch.inf)
                gradients = torch.autograd.grad(F.cross_entropy(logits, y), list(params.values()))
                for name, g in zip(params, gradients, strict=True):
                    total[name] += len(x) * g.square()
                seen += len(x)
        return {name: omega / seen for name, omega in total.items()}
