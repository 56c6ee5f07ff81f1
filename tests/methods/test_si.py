"""Synaptic intelligence: the path integral is the drop of the loss, and Ω is what it should be on a quadratic."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.testing import assert_close

import reference
import tiny
from lifelong.methods.si import SI
from tiny import StandIn, drive, flat, gradients_of, make_learner, random_batches

EXACT = {"rtol": 0.0, "atol": 0.0}


def path_error(lr: float) -> float:
    """|Σ ω − (L(θ_start) − L(θ_end))| of full-batch descent over a fixed time lr · steps."""
    learner, penalty = make_learner(tiny.split()), SI(1.0)
    learner.backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    x, y = random_batches(1, 2, size=16)[0]
    x = x.double()
    before = learner.loss(x, y).item()
    drive(penalty, learner, [(x, y)] * round(0.4 / lr), SGD(learner.parameters(), lr=lr))
    drop = before - learner.loss(x, y).item()
    return abs(flat(penalty.path).sum().item() - drop) / drop


def test_path_sums_to_the_drop_of_the_loss_as_the_rate_vanishes() -> None:
    """The left Riemann sum of a line integral: its error is of first order in the rate, so it halves with it.

    On a smooth network: along the kink of a ReLU descent zigzags, and counts the way to and fro.
    """
    errors = [path_error(lr) for lr in (4e-3, 2e-3, 1e-3)]
    assert errors[-1] < 2e-3
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(2, abs=0.1)


class Bowl(StandIn):
    """½ Σ h θ²."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(3, 1, bias=False, dtype=torch.float64))
        self.backbone.weight.data = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)

    def loss(self, h: Tensor, _: Tensor) -> Tensor:
        return 0.5 * (h * self.backbone.weight**2).sum()


@pytest.mark.parametrize("lr", [0.1, 0.02, 0.004])
def test_importance_on_a_quadratic_is_half_its_curvature(lr: float) -> None:
    """Descent to the minimum gives Ω = h/2 / (1 − lr h/2), the sum of a geometric series: h/2 as lr → 0."""
    h = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    learner, penalty = Bowl(), SI(1.0, damping=1e-12)
    drive(penalty, learner, [(h, h)] * round(15 / lr), SGD(learner.backbone.parameters(), lr=lr))
    tiny.after_task(penalty, learner, [])
    assert_close(penalty.importance["weight"], h / 2 / (1 - lr * h / 2), rtol=1e-6, atol=0.0)  # e^−15 from the end
    assert_close(penalty.importance["weight"], h / 2, rtol=2 * lr, atol=0.0)


def test_importance_is_the_written_formula_over_three_tasks() -> None:
    """ω starts at zero in each task, Ω carries on, the anchor is the latest."""
    learner, penalty = make_learner(tiny.split()).double(), SI(2.0, damping=0.01)
    num_weights = sum(p.numel() for p in learner.parameters())
    omega = torch.zeros(num_weights, dtype=torch.float64)
    for task in range(3):
        batches = [(x.double(), y) for x, y in random_batches(5, 2, seed=task)]
        weights = [flat(dict(learner.backbone.named_parameters()))]
        gradients = []
        for batch in batches:  # step by step, to look in between; the task starts with the first
            gradients.append(_task_gradient(learner, batch))
            drive(penalty, learner, [batch], SGD(learner.parameters(), lr=0.1), step=len(gradients) - 1)
            weights.append(flat(dict(learner.backbone.named_parameters())))
        path = reference.path_integral(torch.stack(gradients), torch.stack(weights))
        omega = reference.synaptic_intelligence(omega, path, weights[0], weights[-1], damping=0.01)
        tiny.after_task(penalty, learner, batches)
        assert_close(flat(penalty.importance), omega, rtol=1e-9, atol=1e-14)
        assert_close(flat(penalty.anchor), weights[-1], **EXACT)


def _task_gradient(learner: nn.Module, batch: tiny.Batch) -> Tensor:
    learner.zero_grad()
    x, y = batch
    F.cross_entropy(learner.backbone(x), y).backward()
    return flat(gradients_of(learner))


def step_by_hand(penalty: SI, gradient: list[float], move: list[float]) -> None:
    before = torch.zeros(len(move))
    penalty.after_step({"w": torch.tensor(gradient)}, {"w": before}, {"w": torch.tensor(move)})


def learned_by_hand(penalty: SI, gradient: list[float], move: list[float]) -> list[float]:
    """One task of one step from the origin; returns Ω."""
    backbone = nn.Module()
    backbone.w = nn.Parameter(torch.zeros(len(move)))
    penalty.begin({"w": torch.zeros(len(move))})
    step_by_hand(penalty, gradient, move)
    backbone.w.data = torch.tensor(move)
    penalty.merge(penalty.importance_of_task(StandIn(backbone), [], torch.Generator()), {"w": torch.tensor(move)})
    return penalty.importance["w"].tolist()


def test_importance_of_one_step_by_hand() -> None:
    """ω = −g Δ = 2.5; Ω = 2.5/(1 + 0.25). Uphill it is 0, and a large one stays as large as it is."""
    assert learned_by_hand(SI(1.0, damping=0.25), [-2.5, 2.5, -2.5e6], [1.0] * 3) == [2.0, 0.0, 2e6]


def test_later_task_may_take_importance_back() -> None:
    """relu is around the sum, Ω + ω/(Δ² + ξ), not around what a task adds."""
    penalty = SI(1.0, damping=1.0)
    assert learned_by_hand(penalty, [-6.0, -6.0], [1.0, 1.0]) == [3.0, 3.0]
    assert learned_by_hand(penalty, [2.0, 8.0], [1.0, 1.0]) == [2.0, 0.0]
