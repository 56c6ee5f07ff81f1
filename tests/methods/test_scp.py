"""Sliced Cramér preservation: closed form of a linear output, slices against their mean, the average over tasks."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import reference
import tiny
from lifelong.methods.scp import SCP
from tiny import learn_by_hand, make_learner, random_batches

EXACT = {"rtol": 0.0, "atol": 0.0}


def importance_of(penalty: SCP, learner: Any, batches: list[tiny.Pair], seed: int = 0) -> dict[str, Tensor]:
    return penalty.importance_of_task(learner, batches, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("visible", [[0, 1, 2, 3, 4, 5], [2, 3]])
def test_importance_of_a_linear_output_has_its_closed_form(visible: list[int]) -> None:
    """f = Wx + b: Γ_W_kj = x̄_j²/K and Γ_b_k = 1/K, K the visible columns; 0 for the others."""
    learner = make_learner(tiny.split("task"))
    learner.backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 6))
    learner.show(visible)
    batches = random_batches(3, 6)
    mean = torch.cat([x for x, _ in batches]).flatten(1).mean(0)
    got = importance_of(SCP(1.0), learner, batches)
    shown = learner.visible.float()
    assert_close(got["1.weight"], shown[:, None] * mean.square()[None] / len(visible))
    assert_close(got["1.bias"], shown / len(visible))


def test_importance_is_the_slow_one_of_the_mean_output_over_the_whole_task() -> None:
    """The square comes after the mean over all batches, not after each."""
    learner = make_learner(tiny.split()).double()
    batches = [(x.double(), y) for x, y in random_batches(3, 2, size=4)]
    expected = reference.sliced_cramer_exact(learner.backbone, torch.cat([x for x, _ in batches]), [0, 1])
    assert_close(importance_of(SCP(1.0), learner, batches), expected, rtol=1e-9, atol=1e-14)


def test_slices_scatter_about_the_exact_importance_as_one_over_root_L() -> None:
    """Unbiased, and 100 times the slices are 10 times as close: no division by L too many."""
    learner, batches = make_learner(tiny.split("class")), random_batches(2, 6)
    exact = importance_of(SCP(1.0), learner, batches)["head.bias"]
    spread = {}
    for num_slices in (10, 1000):
        drawn = [importance_of(SCP(1.0, slices=num_slices), learner, batches, seed)["head.bias"] for seed in range(40)]
        errors = torch.stack(drawn) / exact - 1
        spread[num_slices] = float(errors.square().mean().sqrt())
        assert abs(float(errors.mean())) < 1e-5  # Σ_k ξ_k² = 1 on the sphere: the biases' mean is exact
    assert spread[10] / spread[1000] == pytest.approx(10, rel=0.2)


@pytest.mark.parametrize("slices", ["exact", 4])
def test_labels_are_not_used(slices: int | str) -> None:
    learner, penalty = make_learner(tiny.split()), SCP(1.0, slices=slices)
    batches = random_batches(2, 2)
    unlabelled = [(x, torch.full_like(y, -1)) for x, y in batches]
    assert_close(importance_of(penalty, learner, unlabelled), importance_of(penalty, learner, batches), **EXACT)


def test_past_and_new_are_averaged() -> None:
    """Γ ← α Γ + (1 − α) Γ_new, the first as it is; latest anchor."""
    penalty = SCP(1.0, alpha=0.25)
    for new, expected in ((8.0, 8.0), (4.0, 5.0), (1.0, 2.0)):
        penalty.merge({"w": torch.tensor([new])}, {"w": torch.tensor([new / 2])})
        assert penalty.importance["w"].tolist() == [expected]
        assert penalty.anchor["w"].tolist() == [new / 2]


def test_alpha_zero_forgets_all_but_the_latest_task() -> None:
    learner, penalty = make_learner(tiny.split()), SCP(1.0, alpha=0)
    for task in range(2):
        learn_by_hand(penalty, learner, task)
    assert_close(penalty.importance, importance_of(penalty, learner, random_batches(4, 2, seed=1)), **EXACT)
