"""Uniform sampling of exemplars (Chaudhry et al. 2018, arXiv 1801.10112)."""

import torch
from torch import Tensor

from lifelong.data.examples import Examples
from lifelong.memory.base import ExemplarMemory, Learned


class Uniform(ExemplarMemory):
    """Every example of a class is equally likely."""

    def scores(self, learner: Learned, candidates: Examples) -> Tensor:
        return torch.ones(len(candidates), dtype=torch.float64)
