"""Methods with a part changed or left out, for scripts/ablations.py: method._target_=ablated.… trusted=[ablated]"""

import torch

from lifelong.methods.ewcpp import min_max_normalised
from lifelong.methods.method import Batches, Learned, Params
from lifelong.methods.rwalk import RWalk


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
