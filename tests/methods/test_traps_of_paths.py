"""Mistakes of published code (methods.md, section 12) in the path methods, SI and RWalk."""

from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import SGD
from torch.testing import assert_close

import tiny
from lifelong.methods.penalty import Penalty
from lifelong.methods.rwalk import RWalk
from lifelong.methods.si import SI
from tiny import StandIn, drive, make_learner, random_batches

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*")


class Slope(LightningModule):
    """The loss is the sum of the weights: its gradient is 1 wherever they are, so ω = θ_start − θ_end."""

    def __init__(self, make_optimizer: Any) -> None:
        super().__init__()
        self.backbone = nn.Linear(3, 1, bias=False)
        self.visible = torch.ones(1, dtype=torch.bool)
        self.make_optimizer = make_optimizer

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.backbone.weight.sum()

    def configure_optimizers(self) -> Any:
        return self.make_optimizer(self.parameters())


def on_a_slope(penalty: Penalty, step_size: float = 0.01) -> tuple[Tensor, Tensor]:
    """θ at start and end of a task of four steps, the penalty pulling hard from an anchor far away."""
    learner: Any = Slope(partial(SGD, lr=step_size, momentum=0.5))
    penalty.importance = {"weight": torch.tensor([[1.0, 2.0, 3.0]])}
    penalty.anchor = {"weight": torch.full((1, 3), 5.0)}
    start = learner.backbone.weight.detach().clone()
    tiny.fit(learner, penalty, tiny.split().task(0).train, penalty)
    return start, learner.backbone.weight.detach()


@pytest.mark.parametrize("step", ["gradient", "proximal"])
def test_trap_si_path_of_the_penalised_gradient_or_without_the_last_step(step: str) -> None:
    penalty = SI(3.0, step=step)
    start, end = on_a_slope(penalty)
    assert (end > start).all()  # uphill: the penalty is the stronger
    assert_close(penalty.path["weight"], start - end)


@pytest.mark.parametrize("step", ["gradient", "proximal"])
def test_trap_rwalk_path_of_the_penalised_gradient_or_without_the_last_step(step: str) -> None:
    penalty = RWalk(3.0, step=step, interval=100)
    start, end = on_a_slope(penalty)
    assert (end > start).all()
    assert_close(penalty.drop["weight"], start - end)


def test_trap_si_without_effect_because_before_is_after() -> None:
    """A detached θ is the live θ. One plain step: ω = lr g²."""
    penalty, learner = SI(1.0), make_learner(tiny.split())
    batch = random_batches(1, 2)[0]
    learner.loss(*batch).backward()
    expected = {n: 0.05 * p.grad**2 for n, p in learner.backbone.named_parameters()}
    drive(penalty, learner, [batch], SGD(learner.parameters(), lr=0.05))
    assert_close(penalty.path, expected, rtol=1e-2, atol=1e-8)  # Δθ is a difference of float32 weights
    assert float(penalty.path["head.bias"].min()) > 0


def si_importance(gradient: float, move: float) -> float:
    """Ω of a weight that made one step from 0, ξ = 0.01."""
    penalty, backbone = SI(1.0, damping=0.01), nn.Linear(1, 1, bias=False)
    backbone.weight.data.fill_(move)
    before = {"weight": torch.zeros(1, 1)}
    penalty.begin(before)
    penalty.after_step({"weight": torch.full((1, 1), gradient)}, before, {"weight": torch.full((1, 1), move)})
    penalty.merge(
        penalty.importance_of_task(StandIn(backbone), [], torch.Generator()), {"weight": backbone.weight.data}
    )
    return penalty.importance["weight"].item()


def test_trap_si_importance_unclamped_below_or_clamped_above() -> None:
    """A move uphill is not repulsive later, and a large importance stays as large as it is."""
    assert si_importance(gradient=5.0, move=0.1) == 0
    assert si_importance(gradient=-1e6, move=0.1) == pytest.approx(1e5 / 0.02)


class Scripted(RWalk):
    """A batch is its Fisher."""

    def fisher_of(self, learner: Any, batches: Any) -> dict[str, Tensor]:
        return batches[0]


def rwalk_scores(penalty: RWalk, gradients: list[Tensor], weights: list[Tensor], fisher: Tensor) -> Tensor:
    """One task of a weight vector; returns what is held of the path afterwards."""
    learner = StandIn(nn.Linear(3, 1, bias=False))
    penalty.begin({"weight": weights[0]})
    for g, before, after in zip(gradients, weights, weights[1:], strict=False):
        batches: Any = [{"weight": fisher}] if penalty.wants_batches() else []
        penalty.before_step(learner, batches)
        penalty.after_step({"weight": g}, {"weight": before}, {"weight": after})
    learner.backbone.weight.data = weights[-1]
    tiny.after_task(penalty, learner, [])
    return penalty.score_before["weight"][0]


def row(*values: float) -> Tensor:
    return torch.tensor([values])


def test_trap_rwalk_without_normalisation() -> None:
    """Fisher and score each span [0, 1], whatever the scale of the loss."""
    penalty = Scripted(1.0, interval=1, alpha=1.0)
    rwalk_scores(penalty, [row(-1e4, -5e3, 0.0)], [row(0.0, 0.0, 0.0), row(1.0, 1.0, 1.0)], row(0.0, 1e6, 2e6))
    assert_close(penalty.importance["weight"], row(1.0, 1.0, 1.0))


def test_trap_rwalk_without_relu() -> None:
    """What went uphill in one interval does not cancel what went down in another."""
    penalty = Scripted(1.0, interval=1, alpha=1.0, damping=1.0)
    weights = [row(0.0, 0.0, 0.0), row(1.0, 1.0, 0.0), row(0.0, 2.0, 0.0)]
    gradients = [row(-3.0, 3.0, 0.0), row(-3.0, 3.0, 0.0)]
    assert rwalk_scores(penalty, gradients, weights, row(0.0, 0.0, 0.0)).tolist() == [3, 0, 0]


def test_trap_rwalk_without_intervals() -> None:
    """Δt = 2, ε = 1: down 4 and up 3 is a drop of 1; scored step by step it would be 4."""
    penalty = Scripted(1.0, interval=2, alpha=1.0, damping=1.0)
    weights = [row(0.0, 0.0, 0.0), row(2.0, 1.0, 0.0), row(5.0, 2.0, 0.0)]
    gradients = [row(-2.0, -1.0, 0.0), row(1.0, -1.0, 0.0)]
    assert rwalk_scores(penalty, gradients, weights, row(0.0, 0.0, 0.0)).tolist() == [1, 2, 0]


def test_trap_rwalk_halves_the_first_task() -> None:
    """s_1 whole, then ½ (s_1 + s_2): the first task does not weigh half of the second."""
    penalty = Scripted(1.0, interval=1, alpha=1.0, damping=1.0)
    weights, no_fisher = [row(0.0, 0.0, 0.0), row(1.0, 1.0, 0.0)], row(0.0, 0.0, 0.0)
    assert rwalk_scores(penalty, [row(-4.0, 0.0, 0.0)], weights, no_fisher).tolist() == [4, 0, 0]
    assert rwalk_scores(penalty, [row(0.0, -4.0, 0.0)], weights, no_fisher).tolist() == [2, 2, 0]
