"""Memory aware synapses: absolute values per sample, summed over tasks, without labels; and its local form."""

import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD
from torch.testing import assert_close

import reference
import tiny
from lifelong.methods.mas import MAS
from tiny import drive, make_learner, random_batches

EXACT = {"rtol": 0.0, "atol": 0.0}


def importance_of(penalty: MAS, learner: Any, batches: list[tiny.Pair]) -> dict[str, Tensor]:
    return penalty.importance_of_task(learner, batches, torch.Generator())


@pytest.mark.parametrize("gamma", [1.0, 0.3, 0.0])
def test_importance_is_the_slow_one_at_the_end_of_each_task_summed(gamma: float) -> None:
    learner, penalty = make_learner(tiny.split()).double(), MAS(1.0, gamma=gamma)
    expected: dict[str, Tensor] = {}
    for task in range(3):
        batches = [(x.double(), y) for x, y in random_batches(2, 2, seed=task)]
        drive(penalty, learner, batches, SGD(learner.parameters(), lr=0.05))
        tiny.after_task(penalty, learner, batches)
        own = reference.mas(learner.backbone, torch.cat([x for x, _ in batches]), [0, 1])
        expected = {n: own[n] + gamma * expected.get(n, torch.zeros_like(own[n])) for n in own}
        assert_close(penalty.importance, expected, rtol=1e-9, atol=1e-13)
        assert_close(penalty.anchor, {n: p.detach() for n, p in learner.backbone.named_parameters()}, **EXACT)


@pytest.mark.parametrize("scenario", ["domain", "class"])
def test_mean_over_outputs_is_the_sum_over_the_visible_columns_divided_by_their_number(scenario: str) -> None:
    stream = tiny.split(scenario)
    learner, batches = make_learner(stream).double(), [(x.double(), y) for x, y in random_batches(2, 2)]
    learner.show(stream.visible(1, 1))
    num = 2 if scenario == "domain" else 4
    whole = importance_of(MAS(1.0), learner, batches)
    assert_close(
        importance_of(MAS(1.0, outputs="mean"), learner, batches), {n: w / num for n, w in whole.items()}, **EXACT
    )


def test_batch_takes_the_absolute_value_of_its_mean_gradient() -> None:
    """However the batches come, in their order; a whole task's samples are shuffled for it."""
    learner, penalty = make_learner(tiny.split()).double(), MAS(1.0, batch=5)
    batches = [(x.double(), y) for x, y in random_batches(2, 2)]
    expected = reference.mas_of_batch_means(learner.backbone, torch.cat([x for x, _ in batches]), [0, 1], 5)
    assert_close(importance_of(penalty, learner, batches), expected, rtol=1e-9, atol=1e-13)
    assert penalty.num_samples == sys.maxsize
    assert MAS(1.0).num_samples is None


@pytest.mark.parametrize("option", [{"batch": 8}, {"outputs": "mean"}])
def test_local_importance_has_no_other_option(option: Any) -> None:
    with pytest.raises(ValueError, match=r"^method.local must be false with method.batch or method.outputs=mean"):
        MAS(1.0, local=True, **option)


def test_local_importance_is_the_mean_product_of_the_units_a_weight_connects() -> None:
    """Ω_ij = (1/N) Σ_n |y_i y_j|, y behind its ReLU, the logits as they are, 1 before a bias; one sample at a time."""
    learner = make_learner(tiny.split("task"))
    learner.show([0, 1])
    batches = random_batches(3, 6)
    got = importance_of(MAS(1.0, local=True), learner, batches)
    expected = {n: torch.zeros_like(p) for n, p in learner.backbone.named_parameters()}
    samples = torch.cat([x for x, _ in batches]).flatten(1)
    (w1, b1, w2, b2) = (p.detach() for p in learner.backbone.parameters())
    for x in samples:
        hidden = (w1 @ x + b1).clamp(min=0)
        z = w2 @ hidden + b2
        z[2:] = 0
        for name, i, j in (("body.1", x, hidden), ("head", hidden, z)):
            expected[f"{name}.weight"] += torch.outer(j, i).abs() / len(samples)
            expected[f"{name}.bias"] += j.abs() / len(samples)
    assert_close(got, expected)


def test_local_importance_of_a_convolution_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^method.local must be false for a backbone with other than linear layers"):
        MAS(1.0, local=True).check(tiny.split(), make_learner(tiny.split(), "cnn").backbone)
