"""EWC with the square of batch-mean gradients in the place of the Fisher: what not to do."""

import torch
from torch.nn import functional as F

from lifelong.methods.ewc import EWC
from lifelong.methods.method import Batches, Learned, Params

BATCH = 128


class BatchFisher(EWC):
    """Ω = mean over batches of 128 of (∂ mean loss of the batch/∂θ)², true labels.

    Near an optimum single samples' gradients cancel in the mean: some 1/128 of the Fisher, and another ranking. The
    samples are shuffled first, as in training: batches of one class, as sources hold them, would cancel less.
    """

    def importance_of_task(self, learner: Learned, batches: Batches, generator: torch.Generator) -> Params:
        params = self.penalised(learner.backbone)
        total: Params = {name: torch.zeros_like(p) for name, p in params.items()}
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        order = torch.randperm(len(labels), generator=generator, device=labels.device)
        for chosen in order.split(BATCH):
            logits = learner.backbone(images[chosen]).masked_fill(~learner.visible, -torch.inf)
            gradients = torch.autograd.grad(F.cross_entropy(logits, labels[chosen]), list(params.values()))
            for name, g in zip(params, gradients, strict=True):
                total[name] += len(chosen) * g.square()
        return {name: omega / len(labels) for name, omega in total.items()}
