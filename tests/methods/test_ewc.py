"""Per-task EWC, held in constant memory, and online EWC: sums over tasks, and where they land on quadratics."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.testing import assert_close

import reference
import tiny
from lifelong.methods.ewc import EWC
from lifelong.methods.online_ewc import OnlineEWC
from lifelong.training.loop import importance_batches
from tiny import StandIn, drive, flat, make_learner, random_batches, weights_of

EXACT = {"rtol": 0.0, "atol": 0.0}
STRENGTH = 3.0


def learned(penalty: EWC, num_tasks: int) -> tuple[Any, Tensor, Tensor]:
    """A float64 learner, and the θ^j and slowly computed F^j (T, P) of its tasks."""
    learner = make_learner(tiny.split()).double()
    anchors, fishers = [], []
    for task in range(num_tasks):
        batches = [(x.double(), y) for x, y in random_batches(4, 2, seed=task, size=4)]
        drive(penalty, learner, batches, SGD(learner.parameters(), lr=0.1))
        tiny.after_task(penalty, learner, batches)
        anchors.append(flat(weights_of(learner.backbone)))
        fishers.append(flat(reference.fisher_exact(learner.backbone, torch.cat([x for x, _ in batches]), [0, 1])))
    return learner, torch.stack(anchors), torch.stack(fishers)


def test_ewc_equals_the_sum_over_its_tasks() -> None:
    """Value, constant included, and gradient anywhere: five tasks, each with its own anchor and its own F."""
    penalty = EWC(STRENGTH)
    learner, anchors, fishers = learned(penalty, 5)
    for seed in range(3):
        g = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in learner.backbone.parameters():
                p.copy_(torch.randn(p.shape, generator=g, dtype=torch.float64))
        theta = weights_of(learner.backbone)
        value, gradient = reference.sum_of_quadratics(flat(theta), anchors, fishers)
        assert_close(penalty.value(learner.backbone), STRENGTH / 2 * value, rtol=1e-12, atol=0.0)
        held = 2 * penalty.coefficient * STRENGTH * flat(penalty.importance) * (flat(theta) - flat(penalty.anchor))
        assert_close(held, STRENGTH / 2 * gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("labels", ["exact", "empirical", "weighted", "pred", "batched"])
@pytest.mark.parametrize("make", [EWC, OnlineEWC])
def test_fisher_is_the_slow_one_at_the_end_of_the_task(make: type[EWC], labels: str) -> None:
    penalty, learner = make(1.0, labels=labels, batch_size=5), make_learner(tiny.split())
    batches = random_batches(3, 2)
    drive(penalty, learner, batches, SGD(learner.parameters(), lr=0.1))
    tiny.after_task(penalty, learner, batches)
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    slow = {
        "exact": reference.fisher_exact,
        "empirical": partial(reference.fisher_of_labels, y=y),
        "weighted": partial(reference.fisher_of_weighted_labels, y=y),
        "pred": reference.fisher_of_predictions,
        "batched": partial(reference.squared_batch_means, y=y, batch_size=5),
    }[labels]
    expected = slow(learner.backbone, x, visible=[0, 1])
    assert_close(flat(penalty.importance).double(), flat(expected), rtol=1e-4, atol=1e-9)  # float32 against float64


def test_squared_batch_means_are_of_shuffled_samples() -> None:
    """Batches of one class, as sources hold them, would cancel less. The other Fishers take samples in order."""
    examples, y = tiny.split().task(0).train, []
    for labels in ("batched", "exact"):
        draws = importance_batches(examples, EWC(1.0, labels=labels).num_samples, torch.Generator().manual_seed(0))
        y.append(torch.cat([labels for _, labels in draws]))
    assert_close(y[1], examples.labels, **EXACT)
    assert_close(y[0].sort().values, y[1].sort().values, **EXACT)
    assert not y[0].equal(y[1])


def test_fisher_on_some_samples_draws_each_at_most_once() -> None:
    examples = tiny.split().task(0).train
    assert EWC(1.0, num_samples=20).num_samples == 20
    drawn = importance_batches(examples, 20, torch.Generator().manual_seed(0))
    images = torch.cat([x for x, _ in drawn])
    assert len(images.flatten(1).unique(dim=0)) == len(images) == 20


def test_ewc_holds_two_numbers_per_weight() -> None:
    penalty = EWC(STRENGTH)
    learner, _, _ = learned(penalty, 3)
    assert penalty.state_bytes() == 8 * 2 * sum(p.numel() for p in learner.parameters()) + 8


# On quadratics: task k is ½ h_k (θ − μ_k)², of which the Fisher is exactly h_k --------------------------------------

T, P = 5, 20


class Quadratics(StandIn):
    def __init__(self) -> None:
        super().__init__(nn.Linear(P, 1, bias=False, dtype=torch.float64))
        g = torch.Generator().manual_seed(0)
        self.centres = torch.randn(T, P, generator=g, dtype=torch.float64)
        self.curvatures = 1 + torch.rand(T, P, generator=g, dtype=torch.float64)

    def loss(self, centre: Tensor, curvature: Tensor) -> Tensor:
        return 0.5 * (curvature * (self.backbone.weight - centre) ** 2).sum()

    def learn(self, penalty: EWC) -> list[Tensor]:
        """The T weights that gradient descent ends at."""
        ends = []
        for centre, curvature in zip(self.centres, self.curvatures, strict=True):
            batches = [(centre, curvature)] * 300
            drive(penalty, self, batches, SGD(self.backbone.parameters(), lr=0.1))  # (1 − 0.1·h)^300 < 1e-13
            weights = weights_of(self.backbone)
            penalty.merge({"weight": curvature.expand(1, P).clone()}, weights)
            ends.append(weights["weight"][0])
        return ends


def test_online_ewc_lands_on_the_joint_minimiser_after_every_task() -> None:
    """Huszár 2018: with γ = 1, λ = 1 and exact h it is the recursive Laplace approximation, here without error."""
    world = Quadratics()
    for k, end in enumerate(world.learn(OnlineEWC(1.0, gamma=1.0)), start=1):
        joint = reference.minimiser_of_quadratics(world.centres[:k], world.curvatures[:k])
        assert_close(end, joint, rtol=1e-9, atol=1e-10)


def test_ewc_lands_on_the_joint_minimiser_of_two_tasks_only() -> None:
    """Huszár 2018: from the third on it counts the earliest tasks twice, through the anchors they have moved."""
    world = Quadratics()
    ends = world.learn(EWC(1.0))
    for k, end in enumerate(ends, start=1):
        joint = reference.minimiser_of_quadratics(world.centres[:k], world.curvatures[:k])
        own = torch.stack([*ends[: k - 1], world.centres[k - 1]])
        assert_close(end, reference.minimiser_of_quadratics(own, world.curvatures[:k]), rtol=1e-9, atol=1e-10)
        if k <= 2:
            assert_close(end, joint, rtol=1e-9, atol=1e-10)
        else:
            assert float((end - joint).abs().max()) > 0.1


# Online -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.3, 1.0])
def test_online_ewc_discounts_in_the_sum_and_in_the_loss(gamma: float) -> None:
    """While training task k the penalty is (λ/2) Σ γ Ω_{k−1} (θ − θ_{k−1})², Ω_k = γ Ω_{k−1} + F_k."""
    backbone = nn.Linear(3, 1, bias=False, dtype=torch.float64)
    penalty = OnlineEWC(STRENGTH, gamma=gamma)
    fishers = list(torch.rand(4, 1, 3, dtype=torch.float64))
    for k in range(1, 5):
        anchor = torch.randn(1, 3, dtype=torch.float64)
        penalty.merge({"weight": fishers[k - 1]}, {"weight": anchor})
        omega = gamma * reference.laplace_posterior(fishers[:k], gamma)
        expected = reference.penalty_value([backbone.weight.detach()], [anchor], [omega], c=0.5, strength=STRENGTH)
        assert_close(penalty.value(backbone), expected)


def test_online_ewc_anchors_at_the_latest_weights_and_ewc_between_all() -> None:
    penalties = EWC(1.0), OnlineEWC(1.0)
    for penalty in penalties:
        for weight, omega in ((0.0, 1.0), (4.0, 3.0)):
            penalty.merge({"w": torch.tensor([omega])}, {"w": torch.tensor([weight])})
        assert_close(penalty.importance["w"], torch.tensor([4.0]), **EXACT)
    assert [float(p.anchor["w"]) for p in penalties] == [3.0, 4.0]
