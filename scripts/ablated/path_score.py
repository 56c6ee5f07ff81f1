"""RWalk without its Fisher."""

import torch

from lifelong.methods.ewcpp import min_max_normalised
from lifelong.methods.method import Batches, Learned, Params
from lifelong.methods.rwalk import RWalk


class PathScore(RWalk):
    """λ Σ s̃ (θ − θ*)²: the path score alone, still measured in the distance that the Fisher gives."""

    def importance_of_task(self, learner: Learned, batches: Batches, generator: torch.Generator) -> Params:
        super().importance_of_task(learner, batches, generator)
        return min_max_normalised(self.score_before)
