"""Synaptic intelligence: the path integral is the drop of the loss, and Ω is what it should be on a quadratic."""

import warnings
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.testing import assert_close

import reference
import tiny
from lifelong.methods.guards import ImportanceWarning
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


@pytest.mark.filterwarnings("ignore::lifelong.methods.guards.StabilityWarning")
@pytest.mark.parametrize("gradient", ["task", "total"])
def test_importance_is_the_written_formula_over_three_tasks(gradient: str) -> None:
    """ω starts at zero in each task, Ω carries on, the anchor is the latest; `total` adds the penalty's gradient."""
    learner, penalty = make_learner(tiny.split()).double(), SI(2.0, damping=0.01, gradient=gradient)
    num_weights = sum(p.numel() for p in learner.parameters())
    omega = torch.zeros(num_weights, dtype=torch.float64)
    for task in range(3):
        batches = [(x.double(), y) for x, y in random_batches(5, 2, seed=task)]
        weights = [flat(dict(learner.backbone.named_parameters()))]
        gradients = []
        for batch in batches:  # step by step, to look in between; the task starts with the first
            gradients.append(_task_gradient(learner, batch))
            if gradient == "total" and task:
                gradients[-1] += _penalty_gradient(learner, penalty)
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


def _penalty_gradient(learner: nn.Module, penalty: SI) -> Tensor:
    here, anchor, importance = (
        list(part.values()) for part in (dict(learner.backbone.named_parameters()), penalty.anchor, penalty.importance)
    )
    return torch.cat([g.flatten() for g in reference.penalty_gradient(here, anchor, importance, c=1, strength=2.0)])


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


@pytest.mark.parametrize(("clamp", "after"), [(True, [2.0, 0.0]), ("task", [3.0, 3.0]), (False, [2.0, -1.0])])
def test_relu_is_around_the_sum_or_what_a_task_adds_or_there_is_none(clamp: bool | str, after: list[float]) -> None:
    """Ω + ω/(Δ² + ξ) with ω/(Δ² + ξ) = −1 and −4 in the second task."""
    penalty = SI(1.0, damping=1.0, clamp=clamp)
    assert learned_by_hand(penalty, [-6.0, -6.0], [1.0, 1.0]) == [3.0, 3.0]
    assert learned_by_hand(penalty, [2.0, 8.0], [1.0, 1.0]) == after


def test_importance_has_a_ceiling_but_what_is_added_up_has_none() -> None:
    """Ω = 3, 3, shown as 2.5; then −1 and −4 are added to 3."""
    penalty = SI(1.0, damping=1.0, clamp=False, ceiling=2.5)
    assert learned_by_hand(penalty, [-6.0, -6.0], [1.0, 1.0]) == [2.5, 2.5]
    assert learned_by_hand(penalty, [2.0, 8.0], [1.0, 1.0]) == [2.0, -1.0]
    assert "total" in penalty.state_dict()
    assert "total" not in SI(1.0).state_dict()


@pytest.mark.parametrize("clamp", [True, False])
def test_negative_importance_is_kept_if_it_is_asked_for(clamp: bool) -> None:
    """Whole tasks whose loss rises: no error, and the penalty is what its formula says of Ω < 0."""
    learner, penalty = make_learner(tiny.split()), SI(1.0, clamp=clamp)
    for task in range(2):
        drive(penalty, learner, random_batches(3, 2, seed=task), SGD(learner.parameters(), lr=0.05, maximize=True))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImportanceWarning)
            penalty.strength = float(not clamp)  # of zeros alone, as relu leaves them, the guard complains
            tiny.after_task(penalty, learner, [])
    assert bool((flat(penalty.importance) < 0).any()) is not clamp
    tiny.moved_off(learner)
    here, anchor, importance = (
        list(part.values()) for part in (dict(learner.backbone.named_parameters()), penalty.anchor, penalty.importance)
    )
    expected = reference.penalty_value(here, anchor, importance, c=1, strength=penalty.strength)
    assert_close(penalty.value(learner.backbone), expected.detach(), rtol=1e-5, atol=1e-12)  # float32 products


def test_first_move_is_from_zero_if_the_reference_is() -> None:
    """Zenke's code: Ω = ω/(θ_end² + ξ) after the first task, ω/((θ_end − θ_start)² + ξ) after later ones."""
    found = {}
    for chosen in ("start", "zero"):
        learner, penalty = make_learner(tiny.split()), SI(1.0, reference=chosen)
        for task in range(2):
            penalty.learner = learner
            penalty.before_task(None)  # type: ignore[arg-type]
            found[chosen, task] = flat(penalty.start)
            penalty.merge(penalty.importance_of_task(learner, [], torch.Generator()), penalty.weights())
    weights = flat(dict(learner.backbone.named_parameters()))
    assert_close(found["start", 0], weights, **EXACT)
    assert_close(found["zero", 0], torch.zeros_like(weights), **EXACT)
    assert_close(found["zero", 1], weights, **EXACT)


@pytest.mark.parametrize("option", [{"clamp": False}, {"gradient": "total"}])
def test_what_a_proximal_step_cannot_do_is_refused(option: Any) -> None:
    with pytest.raises(ValueError, match=r"^method.step must be gradient with method.gradient=total or clamp=false"):
        SI(1.0, step="proximal", **option)
