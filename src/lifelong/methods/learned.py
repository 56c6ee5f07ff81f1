"""What methods speak of: the learner, parameters by name, batches."""

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from lifelong.memory.base import Learned as LearnedByMemory

Params = dict[str, Tensor]
"""Tensors by parameter name of the backbone, each of its parameter's shape."""
Batches = Iterable[tuple[Tensor, Tensor]]


class Learned(LearnedByMemory, Protocol):
    """What a method may ask of the learner, besides what a memory may. B batch, K output columns."""

    backbone: nn.Module
    groups: Tensor | None  # (K,) the head that owns each column, where heads differ
    training: bool
    num_steps: int  # optimiser steps of the task in work, if it is not stopped early

    def logits(self, x: Tensor) -> Tensor: ...  # x → z (B, K), all columns

    def task_loss(self, z: Tensor, y: Tensor) -> Tensor: ...  # mean cross-entropy over the columns y may be among


def gradient(p: Tensor) -> Tensor:
    """.grad, zeros where there is none."""
    return torch.zeros_like(p) if p.grad is None else p.grad
