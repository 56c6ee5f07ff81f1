"""Methods with a part changed or left out, for scripts/ablations.py: method._target_=ablated.… trusted=[ablated]"""

import torch

from lifelong.importance import fisher
from lifelong.methods.ewc import EWC
from lifelong.methods.ewcpp import min_max_normalised
from lifelong.methods.method import Batches, Learned, Params
from lifelong.methods.rwalk import RWalk
from lifelong.methods.si import SI

BATCH = 128


class BatchFisher(EWC):
    """Ω = mean over batches of 128 of (∂ mean loss of the batch/∂θ)², true labels: what not to do.

    Near an optimum single samples' gradients cancel in the mean: some 1/128 of the Fisher, and another ranking. The
    samples are shuffled first, as in training: batches of one class, as sources hold them, would cancel less.
    """

    def importance_of_task(self, learner: Learned, batches: Batches, generator: torch.Generator) -> Params:
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        order = torch.randperm(len(labels), generator=generator, device=labels.device)
        shuffled = [(images[order], labels[order])]
        return fisher(learner.backbone, shuffled, labels="batched", visible=learner.visible, batch_size=BATCH)


class MovingFisher(RWalk):
    """λ Σ F̃ (θ − θ*)²: RWalk without its path score, that is EWC++ without the ½."""

    def importance_of_task(self, learner: Learned, batches: Batches, generator: torch.Generator) -> Params:
        super().importance_of_task(learner, batches, generator)
        return min_max_normalised({name: self.fisher[name] for name in self.penalised(learner.backbone)})


class PathScore(RWalk):
    """λ Σ s̃ (θ − θ*)²: RWalk without its Fisher, in whose distance the path score is still measured."""

    def importance_of_task(self, learner: Learned, batches: Batches, generator: torch.Generator) -> Params:
        super().importance_of_task(learner, batches, generator)
        return min_max_normalised(self.score_before)


class PenalisedSI(SI):
    """ω ← ω − (g + ∂penalty/∂θ) Δθ, a trap of published code: the penalty's work is taken for a drop of the loss."""

    def edit_gradients(self, grads: Params) -> None:
        super().edit_gradients(grads)
        self._raw = {name: g.clone() for name, g in grads.items()}
