"""The floor: EWC on a stream of permuted images in plain PyTorch, as fast as we know how to write it.

uint8 images stay in memory, parameters and gradients are one flat vector each, the penalty's gradient is two operations
on it, Adam is fused, the Fisher information is one matrix product per layer without autograd. No logging, no checks, no
checkpoints, no progress. It draws the same permutations, batches and initial weights as ours, so the results agree.

Shapes: B batch, D pixels, P parameters, T tasks.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong.data.seeds import derive_seed, derived_generator

EVALUATION_BATCH = 1024
IMPORTANCE_BATCH = 512


Pair = tuple[Tensor, Tensor]
"""Images (N, D) uint8 and labels (N,)."""


def permuted(images: Tensor, task: int) -> Tensor:
    if task == 0:
        return images
    order = torch.randperm(images.shape[1], generator=derived_generator(0, task, 1))
    return images.gather(1, order.expand_as(images))


@dataclass
class Outcome:
    """What a run learned and what it took.

    Attributes:
        weights: (P,) at the end.
        matrix: (T, T) test accuracies, row = after learning.
        seconds: wall time by phase and of the "whole".
    """

    weights: Tensor
    matrix: Tensor
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        start = perf_counter()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + perf_counter() - start


def learn_stream(
    train: Pair, test: Pair, num_tasks: int, widths: Sequence[int], batch_size: int, lr: float, strength: float
) -> Outcome:
    """One epoch of each task; every task is tested before the first and after each."""
    torch.manual_seed(derive_seed(0))
    (train_x, train_y), (test_x, test_y) = train, test
    sizes = [train_x.shape[1], *widths, 10]
    layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    theta, gradient = flattened(layers)
    outcome = Outcome(theta.detach(), torch.empty(num_tasks, num_tasks))
    with outcome.timed("whole"):
        tests = [permuted(test_x, j) for j in range(num_tasks)]
        accuracies(layers, tests, test_y, outcome)
        anchor, importance = torch.zeros_like(gradient), torch.zeros_like(gradient)
        for task in range(num_tasks):
            images = permuted(train_x, task)
            order = torch.randperm(len(images), generator=derived_generator(derive_seed(0, task), 0))
            with outcome.timed("train"):
                optimizer = torch.optim.Adam([theta], lr=lr, fused=True)
                pull = None if task == 0 else (anchor, strength * importance)
                for index in order.split(batch_size):
                    gradient.zero_()
                    x = images.index_select(0, index).float().div_(255)
                    F.cross_entropy(logits(layers, x), train_y.index_select(0, index)).backward()
                    if pull is not None:
                        gradient.addcmul_(theta.detach() - pull[0], pull[1])
                    optimizer.step()
            with outcome.timed("importance"):
                new = fisher(layers, images, train_y, torch.zeros_like(gradient))
                importance += new
                anchor += torch.where(importance > 0, new / importance, 0.0) * (theta.detach() - anchor)
            outcome.matrix[task] = accuracies(layers, tests, test_y, outcome)
    return outcome


def flattened(layers: Sequence[nn.Linear]) -> tuple[nn.Parameter, Tensor]:
    """(P,) parameters and (P,) gradients, of which those of the layers become views."""
    params = [p for layer in layers for p in (layer.weight, layer.bias)]
    theta = torch.cat([p.detach().flatten() for p in params])
    gradient = torch.zeros_like(theta)
    for p, part, g in zip(params, parts(theta, params), parts(gradient, params), strict=True):
        p.data, p.grad = part, g
    flat = nn.Parameter(theta)
    flat.grad = gradient
    return flat, gradient


def parts(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Views of a flat vector, shaped as these."""
    return [part.view_as(p) for part, p in zip(flat.split([p.numel() for p in like]), like, strict=True)]


def logits(layers: Sequence[nn.Linear], x: Tensor) -> Tensor:
    for layer in layers[:-1]:
        x = torch.relu_(layer(x))
    return layers[-1](x)


@torch.no_grad()
def fisher(layers: Sequence[nn.Linear], images: Tensor, labels: Tensor, total: Tensor) -> Tensor:
    """Mean over samples of (∂ log p(y|x)/∂θ)², added to `total` (P,): for a linear layer (G∘G)ᵀ(A∘A)."""
    sums = parts(total, [p for layer in layers for p in (layer.weight, layer.bias)])
    for x, y in zip(images.split(IMPORTANCE_BATCH), labels.split(IMPORTANCE_BATCH), strict=True):
        inputs = [x.float().div_(255)]
        for layer in layers[:-1]:
            inputs.append(torch.relu_(layer(inputs[-1])))
        g = layers[-1](inputs[-1]).softmax(1)
        g[torch.arange(len(y)), y] -= 1
        for k in reversed(range(len(layers))):
            square = g.square()
            if k > 0:
                g = torch.ops.aten.threshold_backward(g @ layers[k].weight, inputs[k], 0)
            sums[2 * k].addmm_(square.t(), inputs[k].square_())
            sums[2 * k + 1].add_(square.sum(0))
    return total.div_(len(images))


@torch.no_grad()
def accuracies(layers: Sequence[nn.Linear], tests: Sequence[Tensor], labels: Tensor, outcome: Outcome) -> Tensor:
    """(T,) share of each test set whose largest logit is the label's."""
    row = torch.zeros(len(tests))
    with outcome.timed("evaluation"):
        for j, images in enumerate(tests):
            for x, y in zip(images.split(EVALUATION_BATCH), labels.split(EVALUATION_BATCH), strict=True):
                row[j] += int((logits(layers, x.float().div_(255)).argmax(1) == y).sum())
    return row / len(labels)
