"""Sliced Cramér preservation: the slow formula, and the average over tasks."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import reference
import tiny
from lifelong.importance.estimators import unit_slices
from lifelong.methods.scp import SCP
from tiny import learn_by_hand, make_learner, random_batches

EXACT = {"rtol": 0.0, "atol": 0.0}


def importance_of(penalty: SCP, learner: Any, batches: list[tiny.Pair], seed: int = 0) -> dict[str, Tensor]:
    return penalty.importance_of_task(learner, batches, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("slices", ["exact", 4])
def test_importance_is_the_slow_one_of_the_mean_output_over_the_whole_task(slices: int | str) -> None:
    """The square comes after the mean over all batches, not after each."""
    learner = make_learner(tiny.split()).double()
    batches = [(x.double(), y) for x, y in random_batches(3, 2, size=4)]
    drawn = torch.eye(2) if slices == "exact" else unit_slices(4, 2, torch.Generator().manual_seed(0))
    expected = reference.sliced_cramer(learner.backbone, torch.cat([x for x, _ in batches]), [0, 1], drawn)
    assert_close(importance_of(SCP(1.0, slices=slices), learner, batches), expected, rtol=1e-9, atol=1e-14)


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
